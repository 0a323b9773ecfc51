"""Real HTTPS servers on loopback for whole-system tests, with the configuration and policies that reach them."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.certs import TestCa
from tests.servers.upstream import Upstream

API = "api.corp.example"
OTHER = "other.corp.example"
SECRET = "pd-live-7Qz!k2/Vb+9x_Token"
POLICY = f"""apiVersion: paddock/v1
kind: Policy
metadata: {{name: fence-test, scope: sandbox}}
spec:
  network:
    - id: api-read
      to: {{host: {API}, port: 443, protocol: http}}
      allow: [{{methods: [GET], path: /**}}]
  secrets:
    - {{ref: api-token, rule: api-read, in: header, as: bearer}}
"""
WIDER = POLICY.replace("fence-test", "fence-wider").replace(
    "  secrets:",
    f"""    - id: other
      to: {{host: {OTHER}, port: 443, protocol: http}}
      allow: [{{methods: [GET], path: /**}}]
  secrets:""",
)


@dataclass
class Servers:
    """An API that is allowed, another host that is not, and the files that describe them."""

    api: Upstream
    other: Upstream
    config: Path
    policy: Path
    wider: Path


@contextmanager
def servers(directory: Path, **config: object) -> Iterator[Servers]:
    """Both servers on a thread of their own, until the block ends."""
    ca = TestCa(directory)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    call = lambda what: asyncio.run_coroutine_threadsafe(what, loop).result(20)  # noqa: E731
    api, other = Upstream(ca.server_context(API)), Upstream(ca.server_context(OTHER))
    for server in (api, other):
        call(server.__aenter__())
    connections = [
        {"name": name, "port": 443, "address": server.address, "ca": str(ca.path)}
        for name, server in ((API, api), (OTHER, other))
    ]
    files = {"config": json.dumps({"connections": connections, **config}), "policy": POLICY, "wider": WIDER}
    paths = {}
    for name, text in files.items():
        paths[name] = directory / f"{name}.yaml"
        paths[name].write_text(text)
    try:
        yield Servers(api, other, **paths)
    finally:
        for server in (api, other):
            call(server.__aexit__(None, None, None))
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
