"""What a played host holds: a journal on disk that outlives every process that writes it."""

import json
import os
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

OVER = ("answered", "broke", "cancelled")


class Fault(StrEnum):
    """What happens once in the executing worker, at one move."""

    NONE = "none"
    BREAK_BEFORE = "break-before"  # it fails before it took effect
    BREAK_AFTER = "break-after"
    LOSE_ANSWER = "lose-answer"  # it took effect, its answer is lost, it is tried again
    TWICE = "twice"  # it hangs without a heartbeat after it took effect, and answers after its second try did
    HOLD = "hold"  # it stays until it is released, or cancelled
    HOLD_DEAF = "hold-deaf"  # cancelled, it goes on, and takes effect a second time
    FULL = "full"  # as deaf as that, and then it refuses by its answer
    LIE = "lie"  # an undo that says that its resource is gone, and it is not
    UNPROVED = "unproved"  # an undo that did not get its resource away, and says so
    NO_RECEIPT = "no-receipt"  # and does not say so
    DIE = "die"  # it took effect, and its process is killed


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened; the journal's order is the order of events."""

    what: str
    move: str = ""
    detail: str = ""
    id: str = ""
    attempt: int = 0
    pid: int = 0
    at: float = 0.0


class World:
    """The journal of one sandbox: short appends are whole and in order, whoever writes."""

    def __init__(self, directory: Path, workflow_id: str) -> None:
        self._file = directory / f"{workflow_id}.jsonl"

    def note(self, what: str, move: object = "", detail: object = "", id: str = "", attempt: int = 0) -> None:
        line = Line(what, str(move), str(detail), id, attempt, os.getpid(), time.time())
        with open(self._file, "ab", buffering=0) as file:
            file.write(json.dumps(asdict(line)).encode() + b"\n")

    def lines(self) -> tuple[Line, ...]:
        if not self._file.exists():
            return ()
        return tuple(Line(**json.loads(line)) for line in self._file.read_bytes().splitlines())

    def plan(self, move: object, fault: Fault) -> None:
        """What shall happen at a move."""
        self.note("planned", move, fault)

    def fault(self, move: object) -> Fault:
        """What shall happen at this move now: nothing any more once it happened."""
        planned = [line.detail for line in self.lines() if line.what == "planned" and line.move == str(move)]
        return Fault(planned[-1]) if planned and not self.said("fired", move) else Fault.NONE

    def said(self, what: str, move: object = "") -> bool:
        return any(line.what == what and line.move in ("", str(move)) for line in self.lines())


def held(lines: tuple[Line, ...]) -> dict[str, Line]:
    """What exists after these lines, each with the line that took it last."""
    found: dict[str, Line] = {}
    for line in lines:
        if line.what == "took":
            found[line.detail] = line
        elif line.what == "freed":
            found.pop(line.detail, None)
    return found
