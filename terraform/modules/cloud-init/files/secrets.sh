#!/bin/sh
# Writes the machine's secrets as files in /etc/turnfleet that the service alone reads: all, or those that are named. A file that is
# as it should be stays untouched, and another one is replaced at once, so that who reads it while it is renewed reads one or the other.
set -eu
umask 077

# shellcheck source=/dev/null
. /etc/turnfleet/setup.env
# shellcheck source=cloud.sh
. /usr/local/lib/turnfleet/cloud.sh

# write_secrets [NAME...]: the members of the JSON object on standard input.
write_secrets() {
    python3 -c '
import json, os, re, shutil, sys
renewed = []
for name, content in json.load(sys.stdin).items():
    if not re.fullmatch("[a-z0-9][a-z0-9._-]*", name) or not isinstance(content, str):
        sys.exit(f"turnfleet: {name!r} in the secret is no file name with a text")
    path = os.path.join("/etc/turnfleet", name)
    if sys.argv[1:] and name not in sys.argv[1:]:
        continue
    if os.path.exists(path):
        with open(path, "rb") as file:
            if file.read() == content.encode():
                continue
    with open(path + ".part", "wb") as file:
        file.write(content.encode())
    shutil.chown(path + ".part", "turnfleet", "turnfleet")
    renewed.append(path)
# A certificate and its key follow each other closely.
for path in renewed:
    os.replace(path + ".part", path)' "$@"
}

# In a pipe the failure of the first command would be lost.
fetch_secrets() {
    if [ -n "$AWS_SECRET" ]; then
        body="{\"SecretId\": \"$AWS_SECRET\"}"
        answer=$(aws_call secretsmanager -H 'Content-Type: application/x-amz-json-1.1' -H 'X-Amz-Target: secretsmanager.GetSecretValue' --data "$body") || return 1
        bundle=$(printf %s "$answer" | json_value SecretString) || return 1
    else
        bundle=$(sh -c "$SECRETS_COMMAND") || return 1
    fi
    printf %s "$bundle" | write_secrets "$@"
}

again 24 fetch_secrets "$@"
