"""Clients that people use, through the fence: they must not notice more than the certificate authority."""

import asyncio
import shutil
import ssl
import sys
from pathlib import Path

import pytest
import uvloop

from tests.egress.rig import HOST, SECRET, WITH_SECRET, Rig, rig
from tests.servers.shim import a_query
from tests.servers.upstream import Received, full

FETCH = """
import http.client, json, socket, ssl, sys

port, ca, host = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.create_default_context(cafile=ca)
raw = socket.create_connection(("127.0.0.1", port))
connection = http.client.HTTPSConnection(host, context=context)
connection.sock = context.wrap_socket(raw, server_hostname=host)
out = []
for path in ("/api/a", "/echo/raw", "/api/private/x"):
    connection.request("GET", path)
    answer = connection.getresponse()
    out.append([answer.status, answer.read().decode()])
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """The loop that a supervisor runs on; the rest of this room's tests use the standard one."""
    policy_: asyncio.AbstractEventLoopPolicy = uvloop.EventLoopPolicy()
    return policy_


async def run(*argv: str, stdin: bytes = b"") -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(stdin), 20)
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode is not None
    return process.returncode, out.decode()


async def door(r: Rig, tmp_path: Path, name: str = HOST, port: int = 443) -> tuple[int, Path]:
    """The loopback port that leads to `name:port` through the fence, and a file with the authority to trust."""
    address = await r.guest.look_up(name)
    assert address is not None
    assert a_query(name)
    ca = tmp_path / "fence.pem"
    ca.write_bytes(r.gateway.ca_pem)
    assert ssl.create_default_context(cafile=str(ca))
    return await r.guest.listen(address, port), ca


async def test_pythons_own_client_keeps_its_connection_until_it_is_denied(tmp_path: Path) -> None:
    async with rig(tmp_path, WITH_SECRET) as r:
        port, ca = await door(r, tmp_path)
        code, out = await run(sys.executable, "-c", FETCH, str(port), str(ca), HOST)
        assert code == 0, out
        assert '[200, "plain:"]' in out
        assert '[200, "<[scrubbed]>"]' in out
        assert "[403," in out
        assert SECRET.decode() not in out
        assert len(r.guest.captured) == 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("more", [[], ["--http2"], ["--compressed"], ["--tlsv1.2", "--tls-max", "1.2"], ["-r", "0-0"]])
async def test_curl_gets_its_answer(more: list[str], tmp_path: Path) -> None:
    async with rig(tmp_path, WITH_SECRET) as r:
        port, ca = await door(r, tmp_path)
        way = ["--connect-to", f"{HOST}:443:127.0.0.1:{port}", "--cacert", str(ca), "-sS", "-i"]
        code, out = await run("curl", *way, *more, f"https://{HOST}/echo/raw")
        assert code == 0, out
        assert out.startswith("HTTP/1.1 200")
        assert out.endswith("<[scrubbed]>")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_uploads_a_large_body_that_it_announces_with_expect(tmp_path: Path) -> None:
    def answer(received: Received) -> list[bytes]:
        return full(str(len(received.body)).encode())

    async with rig(tmp_path, WITH_SECRET, answer) as r:
        port, ca = await door(r, tmp_path)
        way = ["--connect-to", f"{HOST}:443:127.0.0.1:{port}", "--cacert", str(ca), "-sS"]
        body = bytes(3 << 20)
        for more in (["-H", "Expect: 100-continue"], ["-H", "Transfer-Encoding: chunked"]):
            code, out = await run("curl", *way, *more, "--data-binary", "@-", f"https://{HOST}/api/up", stdin=body)
            assert (code, out) == (0, str(len(body)))


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_20_curl_with_the_fence_as_a_proxy_is_told_that_it_is_none(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        port, _ = await door(r, tmp_path, "plain.test.example", 80)
        code, out = await run("curl", "-sS", "-v", "-x", f"http://127.0.0.1:{port}", f"https://{HOST}/api/x")
        assert code != 0
        assert "405 Method Not Allowed" in out
        assert r.server.connections == r.plain.connections == 0
