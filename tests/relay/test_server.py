"""The relay by itself: who gets in, and that nobody can hurt another through it."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from paddock.contracts.streams import MAX_CONTENT, MAX_MESSAGE
from paddock.relay.frames import MAX_FRAME, BadFrame, Frame, Kind, closing, message
from paddock.relay.server import MAX_HELD, Relay, serve
from tests.relay.rig import TOKEN, eventually, within


@pytest.fixture
async def relay() -> AsyncGenerator[Relay, None]:
    relay = await serve("127.0.0.1", 0, TOKEN)
    yield relay
    await relay.close()


@asynccontextmanager
async def host(relay: Relay, name: str = "box-1") -> AsyncGenerator[ClientConnection, None]:
    """A host of our own making, which may break every rule."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with connect(f"{relay.address}/host/local/{name}", additional_headers=headers, proxy=None) as socket:
        yield socket


async def opened(socket: ClientConnection) -> int:
    frame = Frame.from_message(await within(socket.recv()))
    assert frame.kind is Kind.OPEN
    return frame.stream


@pytest.mark.parametrize("token", ["Bearer wrong", "", TOKEN, f"Basic {TOKEN}"])
async def test_a_host_needs_the_token(relay: Relay, token: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{relay.address}/host/local/box-1", additional_headers={"Authorization": token}, proxy=None)
    assert refused.value.response.status_code == 401


@pytest.mark.parametrize(
    ("path", "status"),
    [("/stream/local/absent", 503), ("/", 404), ("/stream/local", 404), ("/stream/../x/y", 404), ("/host/A/b", 404)],
)
async def test_a_caller_of_nobody_is_told_so(relay: Relay, path: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{relay.address}{path}", proxy=None)
    assert refused.value.response.status_code == status


async def test_a_browser_is_not_let_in(relay: Relay) -> None:
    async with host(relay):
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{relay.address}/stream/local/box-1", origin="https://elsewhere.test", proxy=None)  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403


async def test_messages_pass_both_ways_as_they_are(relay: Relay) -> None:
    async with host(relay) as box, connect(f"{relay.address}/stream/local/box-1", proxy=None) as caller:
        stream = await opened(box)
        await caller.send("words")
        await caller.send(b"\x00bytes")
        assert Frame.from_message(await within(box.recv())) == Frame(Kind.TEXT, stream, b"words")
        assert Frame.from_message(await within(box.recv())) == Frame(Kind.BINARY, stream, b"\x00bytes")
        await box.send(message(stream, "answer").to_bytes())
        await box.send(message(stream, b"\xff").to_bytes())
        await box.send(closing(stream, "done").to_bytes())
        assert (await within(caller.recv()), await within(caller.recv())) == ("answer", b"\xff")
        with pytest.raises(ConnectionClosed, match="done"):
            await within(caller.recv())
        assert Frame.from_message(await within(box.recv())).kind is Kind.CLOSE


async def test_a_caller_that_does_not_read_loses_its_stream_and_no_other(relay: Relay) -> None:
    async with (
        host(relay) as box,
        connect(f"{relay.address}/stream/local/box-1", proxy=None, max_queue=1) as stuck,
        connect(f"{relay.address}/stream/local/box-1", proxy=None) as other,
    ):
        first, second = await opened(box), await opened(box)
        for _ in range(64 * MAX_HELD // MAX_CONTENT):
            await box.send(message(first, bytes(MAX_CONTENT)).to_bytes())
        await box.send(message(second, b"still here").to_bytes())
        assert await within(other.recv()) == b"still here"

        async def read_on() -> None:
            while True:
                await stuck.recv()

        with pytest.raises(ConnectionClosed):
            await within(read_on(), 10)


@pytest.mark.parametrize("nonsense", ["text", b"", b"\x09\x00\x00\x00\x01", Frame(Kind.OPEN, 1).to_bytes()])
async def test_a_host_that_speaks_nonsense_is_cut_off(relay: Relay, nonsense: str | bytes) -> None:
    async with host(relay) as box, connect(f"{relay.address}/stream/local/box-1", proxy=None):
        await opened(box)
        await box.send(nonsense)
        with pytest.raises(ConnectionClosed):
            await within(box.recv())


@pytest.mark.parametrize("large", [bytes(MAX_FRAME), "ü" * (MAX_FRAME // 2), bytes(MAX_FRAME + 1)])
async def test_a_message_that_is_too_large_costs_the_caller_its_stream_and_the_host_nothing(
    relay: Relay, large: str | bytes
) -> None:
    async with host(relay) as box, connect(f"{relay.address}/stream/local/box-1", proxy=None) as caller:
        stream = await opened(box)
        await caller.send(large)
        with pytest.raises(ConnectionClosed):
            await within(caller.recv())
        assert Frame.from_message(await within(box.recv())).kind is Kind.CLOSE
        async with connect(f"{relay.address}/stream/local/box-1", proxy=None):
            assert await opened(box) == stream + 1


async def test_the_newest_connection_of_a_host_takes_its_place(relay: Relay) -> None:
    async with host(relay) as older, host(relay) as newer:
        with pytest.raises(ConnectionClosed):
            await within(older.recv())
        async with connect(f"{relay.address}/stream/local/box-1", proxy=None):
            await opened(newer)


async def test_callers_notice_when_their_host_goes(relay: Relay) -> None:
    async with host(relay) as box, connect(f"{relay.address}/stream/local/box-1", proxy=None) as caller:
        await opened(box)
        box.transport.abort()
        with pytest.raises(ConnectionClosed):
            await within(caller.recv())


@given(st.binary(max_size=64) | st.text(max_size=16))
def test_any_message_is_a_frame_or_refused(received: bytes | str) -> None:
    try:
        frame = Frame.from_message(received)
    except BadFrame:
        return
    assert frame.to_bytes() == received


@given(st.binary(max_size=MAX_MESSAGE), st.integers(0, 2**32 - 1))
def test_a_frame_comes_back_as_it_went(payload: bytes, stream: int) -> None:
    assert Frame.from_message(message(stream, payload).to_bytes()) == Frame(Kind.BINARY, stream, payload)


async def relay_process(tmp_path: Path, *more: str) -> asyncio.subprocess.Process:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "paddock.relay",
        "--token-file",
        str(token),
        *more,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


async def test_the_process_says_its_port_and_ends_when_told(tmp_path: Path) -> None:
    process = await relay_process(tmp_path, "--die-with", str(os.getpid()))
    assert process.stdout is not None
    said = json.loads(await within(process.stdout.readline(), 20))
    async with connect(
        f"{said['relay']}/host/local/box-1", additional_headers={"Authorization": f"Bearer {TOKEN}"}, proxy=None
    ):
        pass
    process.send_signal(signal.SIGTERM)
    assert await within(process.wait()) == 0


async def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = await relay_process(tmp_path, "--port", str(taken.getsockname()[1]))
        _, said = await within(process.communicate(), 20)
    assert process.returncode == 1
    assert b"cannot listen" in said
    assert b"Traceback" not in said


async def test_a_relay_whose_parent_is_gone_does_not_start(tmp_path: Path) -> None:
    process = await relay_process(tmp_path, "--die-with", "1")
    assert await within(process.wait(), 20) != 0


async def test_a_relay_without_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match="token"):
        await serve("127.0.0.1", 0, "")


async def test_a_host_is_forgotten_when_it_leaves(relay: Relay) -> None:
    async with host(relay):
        pass
    await eventually(lambda: not relay._hosts)
