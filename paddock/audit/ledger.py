"""What the recorder does to chains: append, adopt, gap, checkpoint, seal; the time comes from a clock."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from paddock.audit.catalogue import actor_of
from paddock.audit.chain import Chain
from paddock.audit.checkpoint import Checkpoint, parse, sign
from paddock.audit.event import AuditUnavailable, Owner, Said, identity, line, timestamp
from paddock.audit.gaps import Gaps
from paddock.audit.recovery import Recovered
from paddock.audit.segments import chain_lines, checkpoint_path, replace_file
from paddock.audit.spool import Full
from paddock.audit.store import CHAIN, CHECKPOINT, is_sealed, sealed_path, write_sealed
from paddock.audit.tree import leaf_hash

log = logging.getLogger(__name__)
SIGNED_A_TURN = 8
_SEALED = "audit.sealed"


class Refused(Exception):
    """An event or an order that is not taken; `full` when only for lack of room."""

    def __init__(self, why: str, *, full: bool = False) -> None:
        super().__init__(why)
        self.full = full


@dataclass(frozen=True, slots=True)
class Summary:
    """A sealed chain: number of events, hash of the last line, and where it is."""

    events: int
    head: str
    path: Path | None


class Ledger:
    """All chains of a host over one spool."""

    def __init__(
        self,
        directory: Path,
        signer: str,
        checkpoint_s: float,
        key: Ed25519PrivateKey,
        recovered: Recovered,
        clock: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._signer = signer
        self._host = signer.rpartition("/")[2]
        self._checkpoint_s = checkpoint_s
        self._key = key
        self._spool = recovered.spool
        self._torn_bytes = recovered.torn_bytes
        self._clock = clock
        self._gaps = Gaps(directory / "gaps")
        self._due: dict[str, float] = {name: clock() for name in self._spool.chains}
        self._events = 0

    def adopt(self, sandbox: str, owner: Owner) -> None:
        """A supervisor will speak for this sandbox; its chain begins, or goes on under this recorder."""
        if is_sealed(self._directory, sandbox):
            raise Refused("its chain is sealed")
        chain = self._spool.chains.get(sandbox)
        if chain is None:
            chain = self._spool.chains[sandbox] = Chain(sandbox)
            said = Said(kind="audit.opened", detail={"recorder": self._signer})
        elif chain.last_kind == _SEALED:
            raise Refused("its chain is being sealed")
        else:
            said = Said(kind="audit.reopened", detail={"torn_bytes": self._torn_bytes})
        chain.owner = owner
        self._due.setdefault(sandbox, self._clock())
        self._own(chain, said)

    def append(self, sandbox: str, said: Said) -> int:
        """Stage an event; answers its seq, the first one's for a repetition. Durable after `commit`."""
        if said.kind.startswith("audit."):
            raise Refused(f"{said.kind}: only the recorder says this")
        chain = self._chain(sandbox)
        key = identity(said)
        return (said.action_id and chain.known(key)) or self._stage(chain, said, key)

    def gap(self, sandbox: str, dropped: int, action_id: str) -> tuple[int, bool]:
        """Take the count of events that a supervisor had to drop; answers the seq, and whether it is durable yet.

        Staged like any event when there is room, one a group; otherwise added to the one count that is held for the
        sandbox until its chain is sealed, so that a supervisor cannot fill anything by saying it often.
        """
        chain = self._chain(sandbox)
        said = _gap(dropped, action_id)
        key = identity(said)
        if action_id and (seq := chain.known(key)):
            return seq, False
        if not chain.staged_gap:
            try:
                seq = self._stage(chain, said, key)
            except Refused as refused:
                if not isinstance(refused.__cause__, Full):
                    raise
            else:
                chain.staged_gap = True
                return seq, False
        try:
            self._gaps.add(sandbox, dropped, action_id)
        except OSError as error:
            raise Refused(f"the count of dropped events was not written: {error.strerror}", full=True) from error
        return chain.seq, True

    def violation(self, sandbox: str, why: str) -> None:
        """A supervisor was cut off."""
        chain = self._spool.chains.get(sandbox)
        if chain is not None:
            self._own(chain, Said(kind="audit.violation", detail={"why": why}))

    def commit(self) -> None:
        """Make everything staged durable; raises AuditUnavailable."""
        self._spool.commit()

    def _chain(self, sandbox: str) -> Chain:
        chain = self._spool.chains.get(sandbox)
        if chain is None:
            raise Refused("its chain is sealed" if is_sealed(self._directory, sandbox) else "it has no chain here")
        if chain.last_kind == _SEALED:
            raise Refused("its chain is being sealed")
        return chain

    def _own(self, chain: Chain, said: Said) -> None:
        try:
            self._stage(chain, said, identity(said), reserved=True)
        except (Refused, AuditUnavailable) as error:
            log.error("%s of %s was not recorded: %s", said.kind, chain.sandbox, error)

    def _stage(self, chain: Chain, said: Said, key: bytes, *, reserved: bool = False) -> int:
        try:
            text = line(
                said,
                actor=actor_of(said.kind),
                owner=chain.owner,
                host=self._host,
                sandbox=chain.sandbox,
                seq=chain.next_seq + 1,
                prev=chain.next_prev,
                now=self._clock(),
            )
            self._spool.room(chain, len(text) + 1, reserved=reserved)
        except ValueError as error:
            raise Refused(str(error)) from error
        except Full as full:
            raise Refused(str(full), full=True) from full
        except AuditUnavailable as unavailable:
            raise Refused(unavailable.info.message, full=True) from unavailable
        self._events += 1
        return self._spool.stage(chain, key, text, said.kind)

    def until_due(self) -> float:
        """Seconds until the next checkpoint, at most half a second."""
        next_due = min(self._due.values(), default=self._clock() + 0.5)
        return min(max(next_due - self._clock(), 0.0), 0.5)

    def heartbeat(self) -> None:
        """Sign the checkpoints that are due, a few at a time so that events do not wait for them."""
        now = self._clock()
        due = [name for name, at in self._due.items() if at <= now or at > now + 2 * self._checkpoint_s]
        for name in due[:SIGNED_A_TURN]:
            self._due[name] = now + self._checkpoint_s
            self._sign(self._spool.chains[name])

    def sign_all(self) -> None:
        """A last checkpoint of every chain."""
        for name in self._due:
            self._sign(self._spool.chains[name])

    def _note(self, chain: Chain) -> str:
        at = timestamp(self._clock())
        checkpoint = Checkpoint(f"{self._signer}/{chain.sandbox}", chain.seq, chain.frontier.root(), at)
        return sign(checkpoint, self._signer, self._key)

    def _sign(self, chain: Chain) -> None:
        try:
            # Not synced: an older checkpoint after a power cut is true as well.
            note = self._note(chain).encode()
            replace_file(checkpoint_path(self._directory, chain.sandbox), note, durable=False)
        except OSError as error:
            log.error("the checkpoint of %s was not written: %s", chain.sandbox, error)

    def seal(self, sandbox: str) -> Summary:
        """Close a chain for good: last event, checkpoint, and the whole chain in a directory of its own.

        Sealing again answers the same; a sandbox without a chain answers 0 events. Raises AuditUnavailable, OSError.
        """
        if is_sealed(self._directory, sandbox):
            return self._sealed(sandbox)
        chain = self._spool.chains.get(sandbox)
        if chain is None:
            return Summary(0, "", None)
        if chain.last_kind != _SEALED:
            self._say_held(chain)
            said = Said(kind=_SEALED, detail={"events": chain.seq + 1})
            self._stage(chain, said, identity(said), reserved=True)
            self._spool.commit()
        lines = chain_lines(self._directory, sandbox, chain.segments, chain.start)
        path = write_sealed(self._directory, sandbox, lines, self._note(chain))
        self._due.pop(sandbox, None)
        self._spool.forget(sandbox)
        checkpoint_path(self._directory, sandbox).unlink(missing_ok=True)
        return Summary(chain.seq, chain.head, path)

    def _say_held(self, chain: Chain) -> None:
        if (held := self._gaps.held(chain.sandbox)) is None:
            return
        said = _gap(held.dropped, held.reports[-1])
        key = identity(said)
        if not chain.known(key):
            self._stage(chain, said, key, reserved=True)
            self._spool.commit()
        self._gaps.forget(chain.sandbox)

    def _sealed(self, sandbox: str) -> Summary:
        path = sealed_path(self._directory, sandbox)
        checkpoint = parse((path / CHECKPOINT).read_text())
        last = (path / CHAIN).read_bytes().rstrip(b"\n").rpartition(b"\n")[2]
        if sandbox in self._spool.chains:
            self._due.pop(sandbox, None)
            self._spool.forget(sandbox)
        return Summary(checkpoint.size, leaf_hash(last).hex(), path)

    def stats(self) -> dict[str, object]:
        """Counters for the keeper and `paddock doctor`."""
        return {
            "chains": len(self._spool.chains),
            "events": self._events,
            "spool_bytes": self._spool.used_bytes,
            "segments": len(self._spool.sizes),
            "failed": self._spool.failed,
        }


def _gap(dropped: int, action_id: str) -> Said:
    return Said(kind="audit.gap", action_id=action_id, detail={"dropped": dropped, "why": "not recorded"})
