"""A small OpenID Connect provider: real HTTP, real signatures, one person, who has signed in there already."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey


class Provider:
    """It gives a code to whoever comes, and for the code and its PKCE verifier an id token with `claims`."""

    def __init__(self, claims: dict[str, object]) -> None:
        self.claims = claims
        self.key = RSAKey.generate_key(2048, {"kid": "1", "use": "sig", "alg": "RS256"})
        self.signs_with = self.key
        self._asked: dict[str, dict[str, str]] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                words = {key: one[0] for key, one in parse_qs(parts.query).items()}
                if parts.path == "/authorize":
                    code = secrets.token_hex(8)
                    provider._asked[code] = words
                    self.send_response(302)
                    back = urlencode({"code": code, "state": words["state"]})
                    self.send_header("location", f"{words['redirect_uri']}?{back}")
                    self.end_headers()
                elif parts.path == "/jwks":
                    self.say({"keys": [provider.key.as_dict(private=False)]})
                else:
                    here = provider.issuer
                    self.say({
                        "issuer": here, "authorization_endpoint": f"{here}/authorize",
                        "token_endpoint": f"{here}/token", "jwks_uri": f"{here}/jwks",
                        "id_token_signing_alg_values_supported": ["RS256"],
                    })  # fmt: skip

            def do_POST(self) -> None:
                body = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                asked = provider._asked.pop(body["code"][0])
                digest = hashlib.sha256(body["code_verifier"][0].encode()).digest()
                client = base64.b64decode(self.headers["authorization"].split()[1]).decode()
                is_right = base64.urlsafe_b64encode(digest).decode().rstrip("=") == asked["code_challenge"]
                if not is_right or client != "flujo:secret":
                    self.say({"error": "invalid_grant"}, 400)
                    return
                now = int(time.time())
                facts = {"iss": provider.issuer, "aud": "flujo", "iat": now, "exp": now + 60, "nonce": asked["nonce"]}
                token = jwt.encode({"alg": "RS256", "kid": "1"}, {**facts, **provider.claims}, provider.signs_with)
                self.say({"access_token": "x", "token_type": "Bearer", "id_token": token})

            def say(self, facts: dict[str, Any], code: int = 200) -> None:
                self.send_response(code)
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(facts).encode())

            def log_message(self, format: str, *args: object) -> None: ...

        return Handler
