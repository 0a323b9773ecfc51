"""The keeper and a service: each question is answered once, by the service or by its death."""

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from paddock.host.peer import Peer

Pair = tuple[Peer, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.settimeout(5)
    yield Peer(ours), theirs
    ours.close()
    theirs.close()


def asked(theirs: socket.socket) -> dict[str, Any]:
    words: dict[str, Any] = json.loads(theirs.recv(1 << 17))
    return words


def test_answers_go_to_who_asked_in_whatever_order(pair: Pair) -> None:
    peer, theirs = pair
    heard: list[object] = []
    peer.ask({"op": "seal"}, lambda answer: heard.append(("first", answer)))
    peer.ask({"op": "seal"}, lambda answer: heard.append(("second", answer)))
    first, second = asked(theirs)["id"], asked(theirs)["id"]
    for number in (second, first):
        theirs.send(json.dumps({"id": number}).encode())
        assert peer.read()
    assert heard == [("second", {"id": second}), ("first", {"id": first})]


def test_an_answer_is_heard_once_and_a_strangers_not_at_all(pair: Pair) -> None:
    peer, theirs = pair
    heard: list[object] = []
    peer.ask({"op": "seal"}, heard.append)
    number = asked(theirs)["id"]
    for answer in ({"id": number}, {"id": number}, {"id": 99}, {}):
        theirs.send(json.dumps(answer).encode())
        assert peer.read()
    assert heard == [{"id": number}]


def test_nothing_to_read_is_not_the_end(pair: Pair) -> None:
    assert pair[0].read()


def test_a_service_that_is_gone_answers_everybody_with_nothing(pair: Pair) -> None:
    peer, theirs = pair
    heard: list[object] = []
    peer.ask({"op": "seal"}, heard.append)
    asked(theirs)
    theirs.close()
    assert not peer.read()
    peer.close()
    assert heard == [None]


def test_who_asks_a_service_that_is_gone_hears_it_at_once(pair: Pair) -> None:
    peer, theirs = pair
    theirs.close()
    heard: list[object] = []
    peer.ask({"op": "seal"}, heard.append)
    assert heard == [None]
    assert not peer.tell({"op": "adopt"})


@pytest.mark.parametrize("packet", [b"not json", b"[1]", b'{"id": "x"}', b"\xff\xfe", b'{"id": {}}'])
def test_a_service_that_speaks_nonsense_is_taken_for_gone(packet: bytes, pair: Pair) -> None:
    peer, theirs = pair
    theirs.send(packet)
    assert not peer.read()


def test_the_largest_answer_that_a_service_may_send_is_read_whole(pair: Pair) -> None:
    from paddock.packets.port import MAX_PACKET_BYTES

    peer, theirs = pair
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    heard: list[Any] = []
    peer.ask({"op": "sweep"}, heard.append)
    head = json.dumps({"id": asked(theirs)["id"], "revoked": ""}).encode()
    theirs.send(head[:-2] + b"x" * (MAX_PACKET_BYTES - len(head)) + b'"}')
    assert peer.read()
    assert len(heard[0]["revoked"]) == MAX_PACKET_BYTES - len(head)


def test_a_descriptor_travels_beside_the_words(pair: Pair) -> None:
    peer, theirs = pair
    there, back = os.pipe()
    try:
        assert peer.tell({"op": "adopt"}, back)
        data, fds, _, _ = socket.recv_fds(theirs, 1 << 16, 2)
        assert json.loads(data) == {"op": "adopt"}
        os.write(fds[0], b"x")
        assert os.read(there, 1) == b"x"
        os.close(fds[0])
    finally:
        os.close(there)
        os.close(back)
