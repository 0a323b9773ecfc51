"""The host's own table of slots: a reservation is a short lease, confirmed by boot; else it frees itself."""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RESERVED_S = 60.0
REMEMBERED_S = 3600.0


@dataclass(frozen=True, slots=True)
class Slot:
    """One held slot."""

    sandbox_id: str
    workflow_id: str
    confirmed: bool
    expires_at: float
    caller_keys: tuple[str, ...]


class Slots:
    """Slots of one host; every answer is durable before it is given, and each operation may be repeated."""

    def __init__(self, file: Path, size: int, clock: Callable[[], float] = time.time) -> None:
        self._size, self._clock = size, clock
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS slot(sandbox_id TEXT PRIMARY KEY, workflow_id TEXT NOT NULL, "
            "confirmed INTEGER NOT NULL, expires_at REAL NOT NULL, caller_keys TEXT NOT NULL)"
        )
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS past(sandbox_id TEXT PRIMARY KEY, "
            "ended_at REAL NOT NULL, caller_keys TEXT NOT NULL)"
        )

    def close(self) -> None:
        self._db.close()

    @property
    def size(self) -> int:
        return self._size

    def free(self) -> int:
        """How many slots nobody holds now."""
        self._lapse()
        return self._size - int(self._db.execute("SELECT count(*) FROM slot").fetchone()[0])

    def reserve(self, sandbox_id: str, workflow_id: str, caller_keys: tuple[str, ...] = ()) -> bool:
        """Promise a slot for a short time; False when all are held. Asked again, the same promise holds longer."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._lapse()
            known = self._db.execute("SELECT confirmed FROM slot WHERE sandbox_id=?", (sandbox_id,)).fetchone()
            if known is None and self.free() <= 0:
                return False
            self._db.execute(
                "INSERT INTO slot VALUES(?,?,0,?,?) "
                "ON CONFLICT(sandbox_id) DO UPDATE SET expires_at=excluded.expires_at",
                (sandbox_id, workflow_id, self._clock() + RESERVED_S, "\n".join(caller_keys)),
            )
            return True
        finally:
            self._db.execute("COMMIT")

    def confirm(self, sandbox_id: str, workflow_id: str, caller_keys: tuple[str, ...]) -> bool:
        """The sandbox boots: the slot is its own until released. False when it lapsed and another took the last one."""
        if not self.reserve(sandbox_id, workflow_id, caller_keys):
            return False
        self._db.execute("UPDATE slot SET confirmed=1 WHERE sandbox_id=?", (sandbox_id,))
        return True

    def release(self, sandbox_id: str) -> bool:
        """Free the slot; True when the table does not hold it any more, whoever freed it."""
        slot = self.get(sandbox_id)
        self._db.execute("BEGIN IMMEDIATE")
        if slot:
            self._db.execute(
                "INSERT OR REPLACE INTO past VALUES(?,?,?)", (sandbox_id, self._clock(), "\n".join(slot.caller_keys))
            )
        self._db.execute("DELETE FROM past WHERE ended_at<?", (self._clock() - REMEMBERED_S,))
        self._db.execute("DELETE FROM slot WHERE sandbox_id=?", (sandbox_id,))
        self._db.execute("COMMIT")
        return self.get(sandbox_id) is None

    def caller_keys(self, sandbox_id: str) -> tuple[str, ...]:
        """Keys that may open the sandbox's streams, also for a while after its end: a late reader gets its output."""
        if slot := self.get(sandbox_id):
            return slot.caller_keys
        row = self._db.execute("SELECT caller_keys FROM past WHERE sandbox_id=?", (sandbox_id,)).fetchone()
        return tuple(filter(None, row[0].split("\n"))) if row else ()

    def get(self, sandbox_id: str) -> Slot | None:
        row = self._db.execute("SELECT * FROM slot WHERE sandbox_id=?", (sandbox_id,)).fetchone()
        return _slot(row) if row else None

    def allow(self, sandbox_id: str, caller_key: str) -> None:
        """Add a caller's key to a held slot."""
        slot = self.get(sandbox_id)
        if slot and caller_key not in slot.caller_keys:
            keys = "\n".join((*slot.caller_keys, caller_key))
            self._db.execute("UPDATE slot SET caller_keys=? WHERE sandbox_id=?", (keys, sandbox_id))

    def held(self) -> list[Slot]:
        self._lapse()
        return [_slot(row) for row in self._db.execute("SELECT * FROM slot ORDER BY sandbox_id")]

    def _lapse(self) -> None:
        self._db.execute("DELETE FROM slot WHERE confirmed=0 AND expires_at<?", (self._clock(),))


def _slot(row: tuple[str, str, int, float, str]) -> Slot:
    return Slot(row[0], row[1], bool(row[2]), row[3], tuple(filter(None, row[4].split("\n"))))
