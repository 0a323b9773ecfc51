"""One thread that does things later: the emulator's clock."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable


class Later:
    """Calls in the order of their time; one that raises is kept in `failed`, and the others go on."""

    def __init__(self) -> None:
        self.failed: list[BaseException] = []
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._changed = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="arm-later", daemon=True)
        self._thread.start()

    def call(self, after_s: float, what: Callable[[], None]) -> None:
        """Do it once, after so many seconds."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + after_s, next(self._number), what))
            self._changed.notify()

    def stop(self) -> None:
        """Drop what is not due yet, and end the thread."""
        with self._changed:
            self._over = True
            self._changed.notify()
        self._thread.join(10)

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._over:
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait)
        return None

    def _run(self) -> None:
        while (what := self._next()) is not None:
            try:
                what()
            except Exception as wrong:
                self.failed.append(wrong)
