"""The front door's HTTP: one loopback server, each connection on a thread of its own."""

import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.clouds.arm.door import Answer, Request


class Server:
    """Serves until it is closed; then every connection is cut and the port is free."""

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(answer))
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="arm-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it; returns when nobody listens any more."""
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            for one in self._open:
                _cut(one)
        self._thread.join(10)

    def _keep(self, connection: socket.socket, there: bool) -> None:
        with self._lock:
            (self._open.add if there else self._open.discard)(connection)

    def _handler(self, answer: Callable[[Request], Answer]) -> type[BaseHTTPRequestHandler]:
        keep = self._keep

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                keep(self.connection, True)

            def finish(self) -> None:
                keep(self.connection, False)
                super().finish()

            def do(self) -> None:
                self.reply(answer(self.read()))

            do_GET = do_PUT = do_DELETE = do_PATCH = do_POST = do

            def read(self) -> Request:
                where = urlsplit(self.path)
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = json.loads(raw) if raw else None
                headers = {key.title(): value for key, value in self.headers.items()}
                return Request(self.command, where.path, parse_qs(where.query), headers, body)

            def reply(self, said: Answer) -> None:
                if said.cut:
                    self.close_connection = True
                    _cut(self.connection)
                    return
                data = b"" if said.body is None else json.dumps(said.body).encode()
                self.send_response(said.status)
                for key, value in {"Content-Type": "application/json", **said.headers}.items():
                    self.send_header(key, value)
                if said.status != 204:
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

        return Handler


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
