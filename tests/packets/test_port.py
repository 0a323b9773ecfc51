"""The server's end: bounded in what it takes and in what it keeps, whoever is at the other end."""

import os
import selectors
import socket
from collections.abc import Iterator

import pytest

from paddock.packets import port as module
from paddock.packets.port import MAX_PACKET_BYTES, Closed, Port, encode

Ends = tuple[Port, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    with selectors.DefaultSelector() as selector:
        port = Port(ours, selector, "sb-1")
        yield port, theirs
        port.close()
    theirs.close()


def test_packets_come_one_at_a_time_and_none_means_none(ends: Ends) -> None:
    port, peer = ends
    assert port.receive() is None
    peer.send(b"one")
    peer.send(b"two")
    assert [port.receive(), port.receive(), port.receive()] == [b"one", b"two", None]


def test_a_packet_of_the_largest_size_is_taken_and_a_larger_one_closes(ends: Ends) -> None:
    port, peer = ends
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    peer.send(b"x" * MAX_PACKET_BYTES)
    assert port.receive() == b"x" * MAX_PACKET_BYTES
    peer.send(b"x" * (MAX_PACKET_BYTES + 1))
    with pytest.raises(Closed, match="over"):
        port.receive()


def test_a_peer_that_left_is_told_from_one_that_is_silent(ends: Ends) -> None:
    port, peer = ends
    peer.close()
    with pytest.raises(Closed):
        port.receive()


def test_descriptors_that_a_guests_supervisor_attaches_are_not_kept(ends: Ends) -> None:
    port, peer = ends
    before = set(os.listdir("/proc/self/fd"))
    readable, writable = os.pipe()
    socket.send_fds(peer, [b"words"], [writable] * 10)
    assert port.receive() == b"words"
    os.close(writable)
    os.close(readable)
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_keeper_hands_over_one_socket_and_what_is_more_is_closed(ends: Ends) -> None:
    port, peer = ends
    one, other = socket.socketpair()
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(peer, [b"adopt"], [one.fileno(), other.fileno()])
    socket.send_fds(peer, [b"plain"], [])
    came = port.receive_with_descriptor()
    assert came
    assert came[0] == b"adopt"
    assert came[1]
    assert len(os.listdir("/proc/self/fd")) == before + 1
    came[1].send(b"x")
    assert other.recv(1) == b"x"
    for sock in (came[1], one, other):
        sock.close()
    assert port.receive_with_descriptor() == (b"plain", None)
    assert port.receive_with_descriptor() is None


def test_answers_wait_for_a_slow_peer_and_arrive_in_order(ends: Ends) -> None:
    port, peer = ends
    port._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for number in range(100):
        port.send({"id": number, "pad": "x" * 1000})
    heard: list[bytes] = []
    while len(heard) < 100:
        try:
            heard.append(peer.recv(1 << 16))
        except BlockingIOError:
            port.flush()
    assert [f'{{"id":{number},'.encode() in packet for number, packet in enumerate(heard)] == [True] * 100


def test_a_peer_that_asks_without_reading_is_closed(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    port, _ = ends
    monkeypatch.setattr(module, "MAX_WAITING_ANSWERS", 10)
    for number in range(10_000):
        if not port.open:
            break
        port.send({"id": number, "pad": "x" * 10_000})
    assert not port.open
    assert number < 200
    port.send({"id": 0})  # harmless
    port.close()


@pytest.mark.parametrize("wrong", [float("inf"), object(), "\udc80"])
def test_what_is_no_json_is_not_encoded(wrong: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        encode({"a": wrong})
