"""The cloud that a machine sees: the metadata service at 169.254.169.254, what the machine downloads, and the APIs of AWS.

`python cloud.py FOLDER` serves on that address of the namespace that it is started in. FOLDER has the binary (`turnfleet`) and the
secret (`secret`); with `notice` the machine is about to end. Calls of AWS are checked as AWS checks them, by the signature that
botocore makes of the same request, and written to `calls`, one a line.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

FOLDER = sys.argv[1]
TOKEN = "a-token-of-version-2"
KEYS = {"AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "secret/with+signs", "Token": "session//token=="}
METADATA = {
    "instance-id": "i-0123456789abcdef0",
    "public-ipv4": "11.80.0.8",
    "placement/region": "eu-central-1",
    "iam/security-credentials/": "relay",
    "iam/security-credentials/relay": json.dumps(KEYS),
    "autoscaling/target-lifecycle-state": "InService",
}


def signed(request, body):
    """Whether the request's signature is the one that these credentials make."""
    authorization = dict(part.strip(",").split("=", 1) for part in request.headers["Authorization"].split()[1:])
    _, _, region, service, _ = authorization["Credential"].split("/")
    names = authorization["SignedHeaders"].split(";")
    if "x-amz-security-token" not in names:
        return False
    headers = {name: request.headers[name] for name in names}
    url = "http://%s%s" % (request.headers["Host"], request.path)
    copy = AWSRequest(method=request.command, url=url, data=body, headers=headers)
    copy.context["timestamp"] = request.headers["X-Amz-Date"]
    auth = SigV4Auth(Credentials(KEYS["AccessKeyId"], KEYS["SecretAccessKey"], KEYS["Token"]), service, region)
    return auth.signature(auth.string_to_sign(copy, auth.canonical_request(copy)), copy) == authorization["Signature"]


class Cloud(BaseHTTPRequestHandler):
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        known = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.answer(200 if known else 404, TOKEN.encode() if known else b"")

    def do_GET(self):
        if self.path == "/turnfleet":
            with open(os.path.join(FOLDER, "turnfleet"), "rb") as file:
                return self.answer(200, file.read())
        path = self.path.removeprefix("/latest/meta-data/")
        if self.headers["X-aws-ec2-metadata-token"] != TOKEN:
            return self.answer(401, b"")
        if path == "autoscaling/target-lifecycle-state" and os.path.exists(os.path.join(FOLDER, "notice")):
            return self.answer(200, b"Terminated")
        self.answer(200 if path in METADATA else 404, METADATA.get(path, "").encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not signed(self, body):
            return self.answer(403, b"<Code>SignatureDoesNotMatch</Code>")
        if self.headers["X-Amz-Target"] == "secretsmanager.GetSecretValue":
            call = json.loads(body)
            with open(os.path.join(FOLDER, "secret")) as file:
                answer = json.dumps({"ARN": call["SecretId"], "SecretString": file.read()})
        else:
            call = dict(parse_qsl(body.decode()))
            answer = "<Answer/>"
        with open(os.path.join(FOLDER, "calls"), "a") as file:
            file.write(json.dumps(call, sort_keys=True) + "\n")
        self.answer(200, answer.encode())

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("169.254.169.254", 80), Cloud).serve_forever()
