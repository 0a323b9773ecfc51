"""The keeper's door: whatever comes in by it, the keeper lives on and everybody else is served."""

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.host import wire
from paddock.host.keeper import Door, Keeper
from paddock.host.loop import Loop
from paddock.host.messages import KeeperAnswer, KeeperAsk


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    """A keeper with doors and a loop, and nothing behind them: it answers every ask with its number."""

    class Doors(Keeper):
        def __init__(self) -> None:
            self.loop, self.doors = Loop(), []

        def _answer(self, door: Door, ask: KeeperAsk) -> None:
            if ask.op == "boot":
                raise PaddockError(ErrorKind.UNKNOWN_IMAGE, "no such image")
            if ask.op == "destroy":
                raise OSError("no space left")
            door.say(KeeperAnswer(id=ask.id))

    yield Doors()
    signal.set_wakeup_fd(-1)


def door(keeper: Keeper) -> tuple[Door, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(5)
    made = Door(ours)
    keeper.doors.append(made)
    keeper.loop.add(ours.fileno(), lambda: keeper._on_words(made))
    return made, theirs


def answers(sock: socket.socket) -> list[KeeperAnswer]:
    return [frame.open(KeeperAnswer) for frame in wire.Splitter().feed(sock.recv(1 << 16))]


def ask(number: int, op: str) -> bytes:
    return wire.words(KeeperAsk.model_validate({"id": number, "op": op}))


def test_each_ask_is_answered_also_when_several_come_at_once(keeper: Keeper) -> None:
    made, worker = door(keeper)
    worker.send(ask(1, "inventory") + ask(2, "inventory"))
    keeper._on_words(made)
    assert [answer.id for answer in answers(worker)] == [1, 2]


def test_what_goes_wrong_is_an_answer(keeper: Keeper) -> None:
    made, worker = door(keeper)
    worker.send(ask(1, "boot") + ask(2, "destroy"))
    keeper._on_words(made)
    kinds = [answer.error and answer.error.kind for answer in answers(worker)]
    assert kinds == [ErrorKind.UNKNOWN_IMAGE, ErrorKind.BOOT_FAILED]


@pytest.mark.parametrize(
    "nonsense",
    [
        wire.Frame(wire.WORDS, b"not json").pack(),
        wire.Frame(wire.WORDS, b'{"id": 1, "op": "no-such"}').pack(),
        wire.Frame(wire.FAILURE, b"{}").pack(),
        wire.Frame(wire.FAILURE, b'{"kind": "internal", "message": "x"}').pack(),
        wire.HEADER.pack(1 << 31, 0),
        b"",
    ],
)
def test_who_speaks_nonsense_loses_its_door_and_nobody_else_does(keeper: Keeper, nonsense: bytes) -> None:
    bad, stranger = door(keeper)
    good, worker = door(keeper)
    if nonsense:
        stranger.send(nonsense)
    else:
        stranger.close()
    keeper._on_words(bad)
    assert keeper.doors == [good]
    if nonsense:
        assert stranger.recv(10) == b""
    worker.send(ask(3, "inventory"))
    keeper._on_words(good)
    assert [answer.id for answer in answers(worker)] == [3]


def test_a_worker_that_does_not_read_never_gets_half_an_answer(keeper: Keeper) -> None:
    made, worker = door(keeper)
    made.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    made.subscribed = True
    made.say(KeeperAnswer(id=0, why="x" * (1 << 20)))
    assert not made.subscribed
    made.say(KeeperAnswer(id=2))  # what would follow the half is not sent
    data = b""
    while part := worker.recv(1 << 16):
        data += part
    assert wire.Splitter().feed(data) == []
    keeper._on_words(made)
    assert keeper.doors == []


def test_the_keeper_reaps_everything_that_dies(keeper: Keeper) -> None:
    died: list[int] = []

    class Reapers:
        def died(self, pid: int) -> bool:
            died.append(pid)
            return True

    keeper.services = keeper.templates = Reapers()  # type: ignore[assignment]
    children = [os.posix_spawn("/bin/true", ["true"], {}) for _ in range(3)]
    keeper.loop.on_signal(signal.SIGCHLD, keeper._reap)
    try:
        for child in children:
            os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        keeper._reap()
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    assert set(children) <= set(died)
