"""The keeper's event loop: one thread, sockets, child deaths and timers; small enough to fork from."""

import heapq
import itertools
import logging
import os
import selectors
import signal
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class Loop:
    """Calls back for readable descriptors, timers and signals, until `stop`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._signals: dict[int, Callable[[], None]] = {}
        self._running = True
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake_w)
        self.add(self._wake_r, self._on_signal)

    def add(self, fd: int, ready: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, ready)

    def remove(self, fd: int) -> None:
        try:
            self._selector.unregister(fd)
        except (KeyError, ValueError):
            pass

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), call))

    def on_signal(self, number: int, call: Callable[[], None]) -> None:
        self._signals[number] = call
        signal.signal(number, lambda *_: None)

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        while self._running:
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for key, _ in self._selector.select(timeout):
                self._call(key.data)
            while self._timers and self._timers[0][0] <= time.monotonic():
                self._call(heapq.heappop(self._timers)[2])

    def _call(self, what: Callable[[], None]) -> None:
        try:
            what()
        except Exception:  # whatever one callback runs into, the others go on: everything else hangs from this loop
            log.exception("in the loop")

    def _on_signal(self) -> None:
        try:
            numbers = os.read(self._wake_r, 512)
        except BlockingIOError:
            return
        for number in dict.fromkeys(numbers):
            if call := self._signals.get(number):
                call()
