"""One sandbox's chain as its recorder holds it: what is durable, what is staged behind, and recent repetitions."""

from dataclasses import dataclass, field

from paddock.audit.event import GENESIS, Line, Owner, identity
from paddock.audit.tree import Frontier, leaf_hash
from paddock.contracts.base import Wire

REMEMBERED = 2048


class BrokenChain(ValueError):
    """A stored line that does not follow from the one before."""


class Saved(Wire):
    """A chain's state at the start of a segment, so that recovery need not read older ones."""

    owner: Owner
    seq: int
    head: str
    roots: tuple[str, ...]
    segments: tuple[int, ...]
    size_bytes: int
    last_kind: str
    start: int


@dataclass(slots=True)
class Chain:
    """`seq` and `head` are durable; `next_seq` and `next_prev` run ahead of them while a group waits for its commit.

    `start`: no line of the chain is before this byte of the first of its `segments`.
    """

    sandbox: str
    owner: Owner = field(default_factory=Owner)
    seq: int = 0
    head: str = GENESIS
    last_kind: str = ""
    size_bytes: int = 0
    start: int = 0
    segments: set[int] = field(default_factory=set)
    frontier: Frontier = field(default_factory=Frontier)
    recent: dict[bytes, int] = field(default_factory=dict)
    next_seq: int = 0
    next_prev: str = GENESIS
    staged: dict[bytes, int] = field(default_factory=dict)
    staged_bytes: int = 0
    staged_gap: bool = False

    def known(self, key: bytes) -> int | None:
        """The seq of an event that was recorded, or staged, before."""
        return self.recent.get(key) or self.staged.get(key)

    def stage(self, key: bytes, line: bytes) -> bytes:
        """Count a line in that is about to be written; answers its leaf."""
        leaf = leaf_hash(line)
        self.next_seq += 1
        self.next_prev = leaf.hex()
        self.staged[key] = self.next_seq
        self.staged_bytes += len(line) + 1
        return leaf

    def unstage(self) -> None:
        """Forget what was staged and never became durable."""
        self.next_seq, self.next_prev = self.seq, self.head
        self.staged.clear()
        self.staged_bytes = 0
        self.staged_gap = False

    def commit(self, key: bytes, leaf: bytes, line_bytes: int, kind: str, segment: int, start: int) -> None:
        """One staged line is durable, in `segment` at or behind byte `start`."""
        if not self.segments:
            self.start = start
        self.seq += 1
        self.head = leaf.hex()
        self.last_kind = kind
        self.size_bytes += line_bytes + 1
        self.segments.add(segment)
        self.frontier.append(leaf)
        self.staged.pop(key, None)
        self.staged_bytes -= line_bytes + 1
        self.staged_gap = self.staged_gap and bool(self.staged)
        self._remember(key, self.seq)

    def follow(self, line: bytes, event: Line, segment: int, start: int) -> None:
        """Take in a line found on disk; raises BrokenChain when it does not follow."""
        if event.seq != self.seq + 1 or event.prev != self.head:
            raise BrokenChain(f"line {event.seq} of {self.sandbox} does not follow line {self.seq}")
        leaf = leaf_hash(line)
        if not self.segments:
            self.start = start
        self.seq += 1
        self.head = leaf.hex()
        self.last_kind = event.kind
        self.size_bytes += len(line) + 1
        self.segments.add(segment)
        self.frontier.append(leaf)
        self.owner = Owner(project=event.project, owner=event.on_behalf_of, run=event.run)
        self.unstage()

    def remember(self, event: Line) -> None:
        """Know repetitions of a stored event from now on."""
        self._remember(identity(event), event.seq)

    def _remember(self, key: bytes, seq: int) -> None:
        self.recent[key] = seq
        if len(self.recent) > REMEMBERED:
            del self.recent[next(iter(self.recent))]

    def save(self) -> Saved:
        return Saved(
            owner=self.owner,
            seq=self.seq,
            head=self.head,
            roots=tuple(root.hex() for root in self.frontier.roots),
            segments=tuple(sorted(self.segments)),
            size_bytes=self.size_bytes,
            last_kind=self.last_kind,
            start=self.start,
        )


def restore(sandbox: str, saved: Saved) -> Chain:
    """A chain as it was at the start of a segment."""
    chain = Chain(
        sandbox,
        saved.owner,
        saved.seq,
        saved.head,
        saved.last_kind,
        saved.size_bytes,
        saved.start,
        set(saved.segments),
        Frontier(saved.seq, (bytes.fromhex(root) for root in saved.roots)),
    )
    chain.unstage()
    return chain
