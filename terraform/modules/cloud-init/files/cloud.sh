# shellcheck shell=sh
# What the scripts of a Turnfleet machine ask of its cloud: the metadata service, and AWS by the machine's own role. To be sourced.

METADATA=http://169.254.169.254

say() {
    echo "turnfleet: $*"
}

# again TIMES COMMAND...: what fails may succeed in a moment, while a machine and its network start.
again() {
    left=$1
    shift
    until "$@"; do
        left=$((left - 1))
        if [ "$left" -le 0 ]; then
            say "gave up: $*" >&2
            return 1
        fi
        sleep 5
    done
}

# aws_metadata PATH: by version 2, whose token other machines cannot ask for. Nothing, and failure, where there is no such path.
aws_metadata() {
    token=$(curl -sf --max-time 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$METADATA/latest/api/token") || return 1
    curl -sf --max-time 5 -H "X-aws-ec2-metadata-token: $token" "$METADATA/latest/meta-data/$1"
}

# json_value KEY: that of the object on standard input.
json_value() {
    python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}

# aws_call API CURL-ARGUMENTS...: an API of this region, signed with the credentials of the machine's role. They go to curl by its
# standard input, because everybody can read the arguments of a process. AWS_ENDPOINT_URL names another endpoint, as for AWS's own tools.
aws_call() {
    api=$1
    shift
    region=$(aws_metadata placement/region) || return 1
    role=$(aws_metadata iam/security-credentials/) || return 1
    credentials=$(aws_metadata "iam/security-credentials/$role") || return 1
    key=$(printf %s "$credentials" | json_value AccessKeyId) || return 1
    secret=$(printf %s "$credentials" | json_value SecretAccessKey) || return 1
    session=$(printf %s "$credentials" | json_value Token) || return 1
    printf 'user = "%s:%s"\nheader = "X-Amz-Security-Token: %s"\n' "$key" "$secret" "$session" |
        curl -sS --fail --max-time 30 --config - --aws-sigv4 "aws:amz:$region:$api" "$@" \
            "${AWS_ENDPOINT_URL:-https://$api.$region.amazonaws.com}/"
}
