"""Verification offline, from a chain, its checkpoint and public keys alone: is it whole, and if not, what is wrong."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from paddock.audit.checkpoint import BadNote, Checkpoint, Keys, UnknownKey, open_note, parse
from paddock.audit.event import GENESIS, MAX_LINE_BYTES, Line
from paddock.audit.store import CHAIN, CHECKPOINT
from paddock.audit.tree import Frontier, leaf_hash

MAX_PROBLEMS = 50
State = Literal["whole", "broken", "unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`whole`: every line is what was signed. `broken`: it is not. `unknown`: nothing wrong, but not proved either."""

    state: State
    events: int
    head: str
    problems: tuple[str, ...]
    sandbox: str = ""
    signer: str = ""
    signed_at: str = ""


def verify_sandbox(directory: Path, keys: Keys, *, held: Iterable[Checkpoint] = ()) -> Verdict:
    """Verdict on a sealed sandbox's directory; `held`: checkpoints of it that were kept elsewhere. Raises OSError."""
    lines = (directory / CHAIN).read_bytes()
    try:
        note: str | None = (directory / CHECKPOINT).read_text()
    except FileNotFoundError:
        note = None
    except UnicodeDecodeError:
        note = ""
    return verify(lines, note, keys, sandbox=directory.name, held=held, sealed=True)


def verify(
    data: bytes, note: str | None, keys: Keys, *, sandbox: str, held: Iterable[Checkpoint] = (), sealed: bool
) -> Verdict:
    """Verdict on a chain's bytes and the note over it; `sealed`: the note covers all, the seal is last."""
    walk = _Walk(sandbox, sealed=sealed)
    walk.read(data)
    doubts: list[str] = []
    checkpoint: Checkpoint | None = None
    if note is None:
        doubts.append("unsigned: there is no checkpoint")
    else:
        try:
            checkpoint = open_note(note, keys)
        except UnknownKey:
            checkpoint = parse(note)
            doubts.append(f"unknown key: the checkpoint of {checkpoint.origin} is signed by no key given here")
        except BadNote as error:
            walk.problem(f"the checkpoint is no good: {error}")
    if checkpoint is not None:
        walk.compare(checkpoint, "the checkpoint", whole=sealed)
    for other in held:
        walk.compare(other, "a checkpoint held elsewhere", whole=False)
    state: State = "broken" if walk.problems else "unknown" if doubts else "whole"
    return Verdict(
        state,
        walk.lines,
        walk.head,
        (*walk.problems, *doubts),
        sandbox,
        checkpoint.signer if checkpoint else "",
        checkpoint.at if checkpoint else "",
    )


class _Walk:
    """One pass over the lines: what is wrong with them, and the tree's root at every size."""

    def __init__(self, sandbox: str, *, sealed: bool) -> None:
        self.problems: list[str] = []
        self.lines = 0
        self.head = GENESIS
        self._sandbox = sandbox
        self._sealed = sealed
        self._seq = 0
        self._kind = ""
        self._leaves: list[bytes] = []

    def problem(self, words: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(words)

    def read(self, data: bytes) -> None:
        """Walk over all lines; problems name the seq of the line that is wrong."""
        parts: Sequence[bytes] = data.split(b"\n")
        if parts[-1]:
            self.problem(f"cut: {len(parts[-1])} bytes behind event {len(parts) - 1} are no whole line")
        for line in parts[:-1]:
            self._line(line)
        if self._sealed and self._kind != "audit.sealed":
            self.problem(f"cut: the chain ends at {self._seq} without its seal")

    def _line(self, line: bytes) -> None:
        leaf = leaf_hash(line)
        self._leaves.append(leaf)
        self.lines += 1
        try:
            event = Line.model_validate_json(line)
        except ValidationError:
            event = None
        if event is None or len(line) > MAX_LINE_BYTES:
            self.problem(f"edited at {self._seq + 1}: not an event")
            self._seq += 1
        else:
            self._place(event)
        self.head = leaf.hex()

    def _place(self, event: Line) -> None:
        expected = self._seq + 1
        if event.seq > expected:
            missing = f"{expected}" if event.seq == expected + 1 else f"{expected}\u2013{event.seq - 1}"
            self.problem(f"gap {missing}: events are missing")
        elif event.seq < expected:
            self.problem(f"forked at {event.seq}: another event with this number")
        elif event.prev != self.head:
            self.problem(f"edited at {max(self._seq, 1)}: the next event was made for another one")
        if event.sandbox != self._sandbox:
            self.problem(f"foreign at {event.seq}: an event of {event.sandbox[:64]}")
        if self._kind == "audit.sealed":
            self.problem(f"forged at {event.seq}: an event behind the seal")
        self._seq = max(event.seq, self._seq) if event.seq < expected else event.seq
        self._kind = event.kind

    def compare(self, checkpoint: Checkpoint, what: str, *, whole: bool) -> None:
        """The chain against one checkpoint; `whole`: it must cover every line."""
        if checkpoint.sandbox != self._sandbox:
            self.problem(f"foreign: {what} is of {checkpoint.origin}")
            return
        if checkpoint.size > self.lines:
            self.problem(f"cut: {what} covers {checkpoint.size} events, {self.lines} are here")
            return
        if whole and checkpoint.size < self.lines:
            self.problem(f"unsigned from {checkpoint.size + 1}: {what} covers {checkpoint.size} of {self.lines} events")
        frontier = Frontier()
        for leaf in self._leaves[: checkpoint.size]:
            frontier.append(leaf)
        if frontier.root() != checkpoint.root:
            self.problem(f"rewritten: events 1\u2013{checkpoint.size} are not those of {what} ({checkpoint.at})")
