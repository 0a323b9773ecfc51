"""Google's metadata service on loopback, as far as a host that enrols asks it; each request is kept."""

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

FLAVOR = "Metadata-Flavor"


def token(key: EllipticCurvePrivateKey, **claims: object) -> str:
    """A JWT with these claims (ES256), valid for a minute."""
    now = int(time.time())
    said = {"iat": now, "nbf": now - 5, "exp": now + 60, **claims}
    head = f"{_b64(json.dumps({'alg': 'ES256', 'typ': 'JWT'}).encode())}.{_b64(json.dumps(said).encode())}"
    r, s = decode_dss_signature(key.sign(head.encode(), ECDSA(hashes.SHA256())))
    return f"{head}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


class Metadata:
    """Serves a machine's identity until `close`, as a token signed with `key` for the audience that is asked."""

    def __init__(self, key: EllipticCurvePrivateKey) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                where = urlsplit(self.path)
                known = where.path.endswith("/default/identity") and self.headers.get(FLAVOR) == "Google"
                said = token(key, aud=parse_qs(where.query)["audience"][0], sub="host-account") if known else ""
                self.send_response(200 if known else 404)
                self.send_header(FLAVOR, "Google")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said.encode())

            def log_message(self, *_args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
