"""A fence with one TLS server behind it: what most tests of this room begin with."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.egress.config import Connection
from tests.servers.certs import TestCa
from tests.servers.shim import Fenced, fenced, policy
from tests.servers.upstream import Answer, Upstream

HOST = "api.test.example"
SECRET = b"s3cr3t/value+for:tests~1234?&x"

POLICY = """apiVersion: paddock/v1
kind: Policy
metadata: {name: test, scope: sandbox}
spec:
  network:
    - id: api
      to: {host: api.test.example, port: 443, protocol: http}
      allow: [{methods: [GET, POST, HEAD], path: /api/**}, {methods: [GET, HEAD], path: /echo/**}]
      deny: [{methods: ["*"], path: /api/private/**}]
    - id: plain
      to: {host: plain.test.example, port: 80, protocol: http}
      allow: [{methods: [GET, POST], path: /**}]
    - id: spliced
      to: {host: tls.test.example, port: 443, protocol: tls}
    - id: database
      to: {host: db.test.example, port: 5432, protocol: tcp}
"""
WITH_SECRET = POLICY + "  secrets:\n    - {ref: token, rule: api, in: header, as: bearer}\n"


@dataclass
class Rig(Fenced):
    """The fence, and the servers behind it."""

    server: Upstream
    plain: Upstream
    ca: TestCa


@contextlib.asynccontextmanager
async def rig(
    tmp_path: Path,
    text: str = POLICY,
    answer: Answer | None = None,
    values: dict[str, bytes] | None = None,
    **more: Any,
) -> AsyncIterator[Rig]:
    """`api.test.example:443` is a TLS server, `plain.test.example:80` a clear-text one."""
    ca = TestCa(tmp_path)
    async with Upstream(ca.server_context(HOST), answer) as server, Upstream(None, answer) as plain:
        connections = (
            Connection(name=HOST, port=443, address=server.address, ca=ca.path),
            Connection(name="plain.test.example", port=80, address=plain.address),
            Connection(name="tls.test.example", port=443, address=server.address),
            Connection(name="db.test.example", port=5432, address=plain.address),
        )
        values = {"token": SECRET} if values is None else values
        async with fenced(policy(text), connections, values, **more) as f:
            yield Rig(f.gateway, f.guest, f.audit, f.secrets, server, plain, ca)
