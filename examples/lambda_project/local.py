"""The function of this project on this machine: `python local.py -- COMMAND` runs COMMAND with AWS played by it.

Every worker is a process of awslambdaric, AWS's own runtime client, and the command talks to it by boto3. It needs
`pip install "flujo-backend-lambda[testing]"`, no AWS account and no Docker.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from flujo.backend_lambda import Ed25519Signer
from flujo.backend_lambda.testing import LocalLambda


def main() -> int:
    """Run a command against the function."""
    command = sys.argv[2:] if sys.argv[1:2] == ["--"] else sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder, LocalLambda() as aws:
        key = Path(folder, "signing.pem")
        private = Ed25519PrivateKey.generate()
        key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        known = {
            "FLUJO_LAMBDA_PUBLIC_KEYS": Ed25519Signer(key).verifier.text,
            "PSEUDONYM_PEPPER": "only for trying out",
        }
        handler, root = "flujo.backend_lambda.aws.handler", Path(__file__).parent
        function = aws.add("pseudonyms", handler=handler, task_root=root, timeout_s=120, env=known)
        here = {
            "AWS_ENDPOINT_URL_LAMBDA": aws.endpoint_url,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "FLUJO_LAMBDA_FUNCTION": "pseudonyms",
            "FLUJO_LAMBDA_SIGNING_KEY": str(key),
        }
        ended = subprocess.run(command, env={**os.environ, **here}, check=False).returncode
        cold = sum(record.result.init_ms is not None for record in function.records)
        print(f"{len(function.records)} invocations, {cold} of them cold", file=sys.stderr)
    return ended


if __name__ == "__main__":
    raise SystemExit(main())
