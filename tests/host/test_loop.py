"""The keeper's loop: timers in their order, descriptors when readable, signals once, and one thread for all."""

import os
import signal
from collections.abc import Iterator

import pytest

from paddock.host.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    before = signal.getsignal(signal.SIGUSR1)
    made = Loop()
    made.later(10.0, made.stop)  # a test that would hang ends, and fails by what it did not see
    yield made
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGUSR1, before)


def test_timers_are_called_in_the_order_of_their_time_and_then_of_their_asking(loop: Loop) -> None:
    called: list[str] = []
    loop.later(0.03, lambda: called.append("late"))
    loop.later(0.0, lambda: called.append("first"))
    loop.later(0.0, lambda: called.append("second"))
    loop.later(0.04, loop.stop)
    loop.run()
    assert called == ["first", "second", "late"]


def test_a_timer_may_ask_for_another(loop: Loop) -> None:
    called: list[int] = []

    def again() -> None:
        called.append(len(called))
        loop.later(0.0, again if len(called) < 3 else loop.stop)

    loop.later(0.0, again)
    loop.run()
    assert called == [0, 1, 2]


def test_a_readable_descriptor_is_told_and_a_removed_one_is_not(loop: Loop) -> None:
    reader, writer = os.pipe()
    gone_reader, gone_writer = os.pipe()
    heard: list[bytes] = []

    def ready() -> None:
        heard.append(os.read(reader, 10))
        loop.stop()

    loop.add(reader, ready)
    loop.add(gone_reader, lambda: heard.append(b"removed"))
    loop.remove(gone_reader)
    loop.remove(gone_reader)  # harmless
    os.write(gone_writer, b"x")
    os.write(writer, b"words")
    loop.run()
    assert heard == [b"words"]
    for fd in (reader, writer, gone_reader, gone_writer):
        os.close(fd)


def test_a_signal_wakes_the_loop_and_is_handled_outside_of_the_handler(loop: Loop) -> None:
    heard: list[str] = []

    def handle() -> None:
        heard.append("signal")
        loop.later(0.02, loop.stop)

    loop.on_signal(signal.SIGUSR1, handle)
    loop.later(0.0, lambda: [os.kill(os.getpid(), signal.SIGUSR1) for _ in range(3)] and None)
    loop.run()
    assert heard
    assert len(heard) <= 3


def test_what_one_callback_runs_into_keeps_none_of_the_others_from_running(loop: Loop) -> None:
    called: list[str] = []

    def fail() -> None:
        raise RuntimeError("a mistake")

    loop.later(0.0, fail)
    loop.later(0.0, lambda: called.append("next"))
    loop.later(0.01, loop.stop)
    loop.run()
    assert called == ["next"]
