"""The supervisor's end: answers find their question, and a server that is replaced or gone keeps nobody waiting."""

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from paddock.packets import client as module
from paddock.packets.client import PacketClient, Unanswered
from paddock.packets.port import MAX_PACKET_BYTES

PATIENCE_S = 0.2


class Server:
    """The other end, by hand."""

    def __init__(self) -> None:
        self.theirs, self.sock = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.setblocking(False)

    def asked(self) -> list[dict[str, Any]]:
        """Every packet that came until now."""
        found = []
        while True:
            try:
                packet = self.sock.recv(MAX_PACKET_BYTES)
            except BlockingIOError:
                return found
            found.append(json.loads(packet))

    def answer(self, number: int, **words: object) -> None:
        self.sock.send(json.dumps({"id": number, **words}).encode())

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    made = [Server(), Server()]
    yield made
    for server in made:
        server.close()


@pytest.fixture
async def first(servers: list[Server]) -> Server:
    return servers[0]


@pytest.fixture
async def client(first: Server) -> PacketClient:
    return PacketClient(first.theirs, server="recorder", patience_s=PATIENCE_S)


async def answered(future: "asyncio.Future[Any]") -> Any:
    return await asyncio.wait_for(asyncio.shield(future), 5)


async def test_each_answer_goes_to_its_own_question_in_whatever_order(client: PacketClient, first: Server) -> None:
    one, two = client.request({"op": "a"}), client.request({"op": "b"})
    numbers = {words["op"]: words["id"] for words in first.asked()}
    first.answer(numbers["b"], is_="b")
    first.answer(numbers["a"], is_="a")
    assert (await answered(one))["is_"] == "a"
    assert (await answered(two))["is_"] == "b"
    assert client.waiting == 0


async def test_answers_that_nobody_waits_for_are_harmless(client: PacketClient, first: Server) -> None:
    for number in (0, 99, -1):
        first.answer(number)
    one = client.request({})
    [words] = first.asked()
    first.answer(words["id"])
    first.answer(words["id"])
    await answered(one)


@pytest.mark.parametrize("message", [{"a": float("nan")}, {"a": object()}, {"a": "\ud800"}, {"a": b"bytes"}])
async def test_what_is_no_json_is_refused_and_the_next_one_goes_out(
    message: dict[str, object], client: PacketClient, first: Server
) -> None:
    with pytest.raises(Unanswered, match="not JSON"):
        await answered(client.request(message))
    one = client.request({})
    [words] = first.asked()
    first.answer(words["id"])
    await answered(one)


async def test_a_request_that_is_too_large_is_refused_here_and_not_there(client: PacketClient, first: Server) -> None:
    with pytest.raises(Unanswered, match="over"):
        await answered(client.request({"a": "x" * MAX_PACKET_BYTES}))
    assert first.asked() == []


async def test_no_more_wait_than_there_may(
    client: PacketClient, first: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    futures = [client.request({}) for _ in range(3)]
    with pytest.raises(Unanswered, match="already wait"):
        await answered(client.request({}))
    for words in first.asked():
        first.answer(words["id"])
    for future in futures:
        await answered(future)


async def test_only_so_many_are_sent_before_answers_come_and_none_is_lost(
    client: PacketClient, first: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNANSWERED", 2)
    futures = [client.request({"n": n}) for n in range(7)]
    seen: list[int] = []
    while len(seen) < 7:
        batch = first.asked()
        assert len(batch) <= 2
        for words in batch:
            seen.append(words["n"])
            first.answer(words["id"])
        await asyncio.sleep(0)
    for future in futures:
        await answered(future)
    assert seen == list(range(7))


async def test_a_server_that_is_silent_is_given_up_after_a_while(client: PacketClient) -> None:
    with pytest.raises(Unanswered, match="does not answer"):
        await answered(client.request({}))


async def test_a_replacement_hears_its_preamble_and_then_all_that_is_unanswered_in_order(
    client: PacketClient, servers: list[Server]
) -> None:
    first, second = servers
    client.preamble = lambda: [{"op": "open"}]
    done = client.request({"n": 0})
    [words] = first.asked()
    first.answer(words["id"])
    await answered(done)
    left = [client.request({"n": n}) for n in (1, 2)]
    first.close()
    late = client.request({"n": 3})
    client.replace(second.theirs)
    said = second.asked()
    assert [words.get("n", words.get("op")) for words in said] == ["open", 1, 2, 3]
    for words in said:
        second.answer(words["id"])
    for future in (*left, late):
        await answered(future)


async def test_without_a_replacement_everybody_hears_it_and_later_ones_at_once(
    client: PacketClient, servers: list[Server]
) -> None:
    first, second = servers
    waiting = [client.request({}) for _ in range(3)]
    first.close()
    for future in waiting:
        with pytest.raises(Unanswered, match="gone and was not replaced"):
            await answered(future)
    loop = asyncio.get_running_loop()
    before = loop.time()
    with pytest.raises(Unanswered, match="gone and was not replaced"):
        await answered(client.request({}))
    assert loop.time() - before < PATIENCE_S
    client.replace(second.theirs)
    back = client.request({})
    [words] = second.asked()
    second.answer(words["id"])
    await answered(back)


async def test_replacements_that_die_as_well_prolong_nothing_for_ever(client: PacketClient) -> None:
    future = client.request({})
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not future.done():
        assert loop.time() - began < 10 * PATIENCE_S
        dying = Server()
        client.replace(dying.theirs)
        dying.close()
        await asyncio.sleep(PATIENCE_S / 10)
    with pytest.raises(Unanswered):
        await answered(future)


async def test_a_closed_one_lets_nobody_wait(client: PacketClient) -> None:
    waiting = client.request({})
    client.close()
    for future in (waiting, client.request({})):
        with pytest.raises(Unanswered, match="closed"):
            await answered(future)


async def test_a_request_that_nobody_awaits_warns_nobody(
    client: PacketClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.request({"a": float("nan")})
    client.request({})
    client.close()
    import gc

    gc.collect()
    await asyncio.sleep(0)
    assert "never retrieved" not in caplog.text
