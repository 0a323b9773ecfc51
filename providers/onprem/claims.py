"""Who has which machine: one SQLite file, changed by compare-and-set, with a fencing number that only rises."""

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from providers.contract import Blame, ErrorClass, HostOrder, ProviderError

_BUSY_S = 10.0
_LOOK_EVERY_S = 0.02
_ENDED_KEPT_S = 90 * 86_400
_SCHEMA = """
CREATE TABLE IF NOT EXISTS claims (
    machine TEXT PRIMARY KEY, zone TEXT NOT NULL, fencing INTEGER NOT NULL, state TEXT NOT NULL,
    token TEXT NOT NULL, wanted TEXT NOT NULL, claimed_at REAL NOT NULL, asked_at REAL, off_at REAL,
    seen_on INTEGER NOT NULL DEFAULT 0, reset_at TEXT NOT NULL DEFAULT '', why TEXT NOT NULL DEFAULT '', freed_at REAL
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS one_machine_for_one_order ON claims (token) WHERE state <> 'free';
CREATE TABLE IF NOT EXISTS ended (token TEXT PRIMARY KEY, machine TEXT NOT NULL, at REAL NOT NULL) STRICT;
"""
_TAKE = """
INSERT INTO claims (machine, zone, fencing, state, token, wanted, claimed_at) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (machine) DO UPDATE SET zone = excluded.zone, fencing = excluded.fencing, state = excluded.state,
    token = excluded.token, wanted = excluded.wanted, claimed_at = excluded.claimed_at,
    asked_at = NULL, off_at = NULL, seen_on = 0, reset_at = '', why = '', freed_at = NULL
"""


class State(StrEnum):
    """A claim's life; `powering` is written before the BMC is asked, so no crash hides that it was."""

    FREE = "free"
    CLAIMED = "claimed"
    POWERING = "powering"
    ON = "on"
    ENDING = "ending"
    WIPING = "wiping"


class Stale(ProviderError):
    """The claim is over, or has moved on: whoever holds its old fencing number may do nothing to the machine."""

    def __init__(self, words: str) -> None:
        super().__init__(ErrorClass.CONFLICT, words, code="fencing")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an order asked for, as it is kept with its claim."""

    token: str
    name: str
    size: str
    zone: str
    image: str
    user_data: str
    tags: Mapping[str, str]

    @classmethod
    def of(cls, order: HostOrder) -> "Wanted":
        """What `order` asks for."""
        return cls(str(order.token), order.name, order.size, order.zone, order.image, order.user_data, dict(order.tags))

    def text(self) -> str:
        """The same for the same order, byte by byte."""
        return json.dumps(
            [self.token, self.name, self.size, self.zone, self.image, self.user_data, dict(self.tags)], sort_keys=True
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """One machine's row. Times are seconds since the epoch; `asked_at` and `off_at` are when the BMC last accepted
    to turn it on and off, `seen_on` whether it was seen on since, `reset_at` the BMC's own time of its last reset."""

    machine: str
    zone: str
    fencing: int
    state: State
    wanted: Wanted
    claimed_at: float
    asked_at: float | None = None
    off_at: float | None = None
    seen_on: bool = False
    reset_at: str = ""
    why: str = ""

    @property
    def id(self) -> str:
        """The machine with its fencing number: it names this claim and no later one."""
        return f"{self.machine}@{self.fencing}"


@dataclass(frozen=True)
class Claims:
    """The claims in `file`, for all processes of one machine; locks lie in a directory beside it."""

    file: Path
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        try:
            self._locks.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except OSError as wrong:
            raise _failed(self.file, wrong) from None
        with self._base() as base:
            base.executescript(_SCHEMA)

    @property
    def _locks(self) -> Path:
        return self.file.with_name(f"{self.file.name}.locks")

    # Reading

    def of(self, machine: str) -> Claim | None:
        """The machine's row, free or not; None when it was never claimed."""
        return next(iter(self._select("WHERE machine = ?", machine)), None)

    def by_token(self, token: str) -> Claim | None:
        """The claim of an order; None when it has none now."""
        return next(iter(self._select("WHERE token = ? AND state <> 'free'", token)), None)

    def held(self) -> tuple[Claim, ...]:
        """Every claim that is not over."""
        return self._select("WHERE state <> 'free'")

    # Changing

    def claim(self, machines: Sequence[tuple[str, str]], wanted: Wanted) -> Claim:
        """The order's machine: the one it has, else the free one of these (name, zone) that rested longest.

        Raises ProviderError: capacity when none is free, conflict when the order ended or asked for something else.
        """
        with self._base() as base, _writing(base):
            mine = _rows(base, "WHERE token = ? AND state <> 'free'", wanted.token)
            if mine:
                if mine[0].wanted.text() != wanted.text():
                    raise _conflict(f"order {wanted.name} has {mine[0].machine} already, with other words", "order")
                return mine[0]
            if base.execute("SELECT 1 FROM ended WHERE token = ?", (wanted.token,)).fetchone():
                raise _conflict(f"order {wanted.name} was ended: a new machine is a new attempt", "ended")
            known = {name: (state, freed, fencing) for name, state, freed, fencing in base.execute(
                "SELECT machine, state, freed_at, fencing FROM claims")}  # fmt: skip
            free = [one for one in machines if known.get(one[0], ("free",))[0] == State.FREE]
            if not free:
                raise ProviderError(
                    ErrorClass.CAPACITY, f"all {len(machines)} machines that fit are claimed", code="none-free"
                )
            machine, zone = min(free, key=lambda one: known[one[0]][1] or 0.0 if one[0] in known else 0.0)
            fencing = known[machine][2] + 1 if machine in known else 1
            new = Claim(machine, zone, fencing, State.CLAIMED, wanted, self.clock())
            base.execute(
                _TAKE,
                (machine, zone, fencing, new.state, wanted.token, wanted.text(), new.claimed_at),
            )
            return new

    def change(self, claim: Claim, **fields: Any) -> Claim:
        """The claim with these fields, if it is as it was. Raises Stale."""
        new = replace(claim, **fields)
        with self._base() as base, _writing(base):
            done = base.execute(
                "UPDATE claims SET state = ?, asked_at = ?, off_at = ?, seen_on = ?, reset_at = ?, why = ?"
                " WHERE machine = ? AND fencing = ? AND state = ?",
                (new.state, new.asked_at, new.off_at, int(new.seen_on), new.reset_at, new.why, *_key(claim)),
            )
            if done.rowcount != 1:
                raise Stale(f"the claim {claim.id} is not {claim.state} any more")
        return new

    def release(self, claim: Claim, *, ended: bool = True) -> None:
        """The machine is free; an order that `ended` never gets another one. Raises Stale."""
        now = self.clock()
        with self._base() as base, _writing(base):
            done = base.execute(
                "UPDATE claims SET state = 'free', freed_at = ?, wanted = ''"
                " WHERE machine = ? AND fencing = ? AND state = ? AND state <> 'free'",
                (now, *_key(claim)),
            )
            if done.rowcount != 1:
                raise Stale(f"the claim {claim.id} is not {claim.state} any more")
            base.execute("DELETE FROM ended WHERE at < ?", (now - _ENDED_KEPT_S,))
            if ended:
                base.execute("INSERT OR REPLACE INTO ended VALUES (?, ?, ?)", (claim.wanted.token, claim.machine, now))

    # Alone with a machine

    @contextmanager
    def acting(self, claim: Claim, wait_s: float) -> Iterator[Claim]:
        """The claim as it is now, and nobody else acts on its machine meanwhile.

        Whoever asks a BMC for power does so inside, so a claim cannot end between the look at its number and the deed.
        The kernel drops the lock of a process that dies. Raises Stale, and ProviderError (transient) after `wait_s`.
        """
        try:
            lock = os.open(self._locks / claim.machine, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as wrong:
            raise _failed(self._locks, wrong) from None
        try:
            until = time.monotonic() + wait_s
            while not _locked(lock):
                if time.monotonic() >= until:
                    raise ProviderError(
                        ErrorClass.TRANSIENT, f"{claim.machine}: another call is at work on it", code="busy"
                    )
                time.sleep(_LOOK_EVERY_S)
            now = self.of(claim.machine)
            if now is None or now.fencing != claim.fencing or now.state is State.FREE:
                raise Stale(f"the claim {claim.id} is over")
            yield now
        finally:
            os.close(lock)

    def _select(self, where: str, *values: str) -> tuple[Claim, ...]:
        with self._base() as base:
            return _rows(base, where, *values)

    @contextmanager
    def _base(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.file, timeout=_BUSY_S, isolation_level=None)) as base:
                base.execute("PRAGMA synchronous = FULL")
                yield base
        except sqlite3.OperationalError as wrong:
            raise ProviderError(ErrorClass.TRANSIENT, f"the claims {self.file}: {wrong}", code="claims") from None
        except (sqlite3.DatabaseError, ValueError, TypeError) as wrong:
            raise ProviderError(
                ErrorClass.INVALID,
                f"the claims {self.file} cannot be read: {wrong}; restore them, or look at each machine by hand",
                code="claims",
                blame=Blame.CALLER,
            ) from None


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _key(claim: Claim) -> tuple[str, int, str]:
    return claim.machine, claim.fencing, claim.state


def _failed(file: Path, wrong: OSError) -> ProviderError:
    return ProviderError(ErrorClass.TRANSIENT, f"the claims {file}: {wrong.strerror}", code="claims")


def _conflict(words: str, code: str) -> ProviderError:
    return ProviderError(ErrorClass.CONFLICT, words, code=code, blame=Blame.PADDOCK)


@contextmanager
def _writing(base: sqlite3.Connection) -> Iterator[None]:
    """One transaction that holds the write lock from its first read on."""
    base.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        base.execute("ROLLBACK")
        raise
    base.execute("COMMIT")


def _rows(base: sqlite3.Connection, where: str, *values: str) -> tuple[Claim, ...]:
    columns = "machine, zone, fencing, state, token, wanted, claimed_at, asked_at, off_at, seen_on, reset_at, why"
    query = f"SELECT {columns} FROM claims {where} ORDER BY machine"  # noqa: S608 - both are constants of this module
    return tuple(_claim(row) for row in base.execute(query, values))


def _claim(row: tuple[Any, ...]) -> Claim:
    machine, zone, fencing, state, token, wanted, claimed_at, asked_at, off_at, seen_on, reset_at, why = row
    known = Wanted(*json.loads(wanted)) if wanted else Wanted(token, "", "", "", "", "", {})
    return Claim(
        machine, zone, fencing, State(state), known, claimed_at, asked_at, off_at, bool(seen_on), reset_at, why
    )
