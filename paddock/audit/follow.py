"""Reading a recorder's events while it writes them: those there are, then new ones as they come."""

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from paddock.audit.event import Line
from paddock.audit.segments import complete_lines, segment_path, segments
from paddock.audit.store import CHAIN, is_sealed, sealed_path


def follow(
    directory: Path, sandbox: str | None, *, last: int | None, more: Callable[[], bool] | None
) -> Iterator[tuple[bytes, Line]]:
    """(line, its fields) of all sandboxes or of one, the newest `last` of those there are (None: all).

    With `more`, goes on: it is called whenever there is nothing new, waits a moment, and ends it by answering False.
    """
    if sandbox is not None and is_sealed(directory, sandbox):
        yield from _newest(_parsed(sealed_path(directory, sandbox) / CHAIN, 0, None), last)
        return
    place = _Place(directory)
    yield from _newest(place.new(sandbox), last)
    while more is not None and more():
        yield from place.new(sandbox)


def _newest(lines: Iterator[tuple[bytes, Line]], last: int | None) -> Iterator[tuple[bytes, Line]]:
    return lines if last is None else iter(deque(lines, maxlen=last))


def _parsed(path: Path, start: int, sandbox: str | None) -> Iterator[tuple[bytes, Line]]:
    for _, line in complete_lines(path, start):
        try:
            event = Line.model_validate_json(line)
        except ValidationError:
            continue
        if sandbox is None or event.sandbox == sandbox:
            yield line, event


class _Place:
    """How far the spool was read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._segment = 0
        self._offset = 0

    def new(self, sandbox: str | None) -> Iterator[tuple[bytes, Line]]:
        """Complete lines since the last call; a segment that was deleted meanwhile is passed over."""
        for number in segments(self._directory):
            if number < self._segment:
                continue
            if number > self._segment:
                self._segment, self._offset = number, 0
            try:
                for offset, line in complete_lines(segment_path(self._directory, number), self._offset):
                    self._offset = offset + len(line) + 1
                    try:
                        event = Line.model_validate_json(line)
                    except ValidationError:
                        continue
                    if sandbox is None or event.sandbox == sandbox:
                        yield line, event
            except FileNotFoundError:
                continue
