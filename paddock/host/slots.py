"""The host's own table of slots: a reservation is a short lease, confirmed by boot; else it frees itself."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import Field, ValidationError

from paddock.contracts.base import Wire

RESERVED_S = 60.0
REMEMBERED_S = 3600.0
SET_BACK_S = 5.0  # a clock that is disciplined moves by less
MAX_KEYS = 64


class Slot(Wire):
    """One held slot; only a reservation that no boot confirmed has an end."""

    sandbox_id: str
    workflow_id: str
    confirmed: bool = False
    expires_at: float
    caller_keys: tuple[str, ...] = ()


class Past(Wire):
    """A sandbox that ended lately, and who may still fetch what it left."""

    ended_at: float
    caller_keys: tuple[str, ...] = ()


class Table(Wire):
    """What the file holds."""

    held: dict[str, Slot] = Field(default_factory=dict)
    past: dict[str, Past] = Field(default_factory=dict)


class Slots:
    """Slots of one host, in one small file that is replaced whole; each operation may be repeated.

    For one event loop in one process. The file survives that process; it need not survive the machine, which no
    sandbox does either.
    """

    def __init__(self, file: Path, size: int, clock: Callable[[], float] = time.time) -> None:
        self._file, self._size, self._clock = file, size, clock
        try:
            table = Table.model_validate_json(file.read_bytes())
        except (FileNotFoundError, ValidationError):
            table = Table()
        self._held, self._past = dict(table.held), dict(table.past)
        # Not in the file: its `Host` says both again. A host promises nothing before it has proved itself, and nothing
        # new once it is `leaving`.
        self.closed = self.leaving = False

    @property
    def size(self) -> int:
        return self._size

    def free(self) -> int:
        """How many slots nobody holds now."""
        self._lapse()
        return 0 if self.closed or self.leaving else self._size - len(self._held)

    def reserve(self, sandbox_id: str, workflow_id: str, caller_keys: tuple[str, ...] = ()) -> bool:
        """Promise a slot for a short time; False when all are held. Asked again, the same promise holds longer."""
        if sandbox_id not in self._held and (self.closed or self.leaving):
            return False
        return self._hold(sandbox_id, workflow_id, caller_keys)

    def confirm(self, sandbox_id: str, workflow_id: str, caller_keys: tuple[str, ...]) -> bool:
        """The sandbox boots: the slot is its own until released. False when it lapsed and another took the last one."""
        if not self._hold(sandbox_id, workflow_id, caller_keys):
            return False
        self._put(self._held[sandbox_id].model_copy(update={"confirmed": True}))
        return True

    def _hold(self, sandbox_id: str, workflow_id: str, caller_keys: tuple[str, ...]) -> bool:
        self._lapse()
        known = self._held.get(sandbox_id)
        if known is None and len(self._held) >= self._size:
            return False
        slot = known or Slot(
            sandbox_id=sandbox_id, workflow_id=workflow_id, expires_at=0, caller_keys=tuple(dict.fromkeys(caller_keys))
        )
        self._put(slot.model_copy(update={"expires_at": self._clock() + RESERVED_S}))
        return True

    def release(self, sandbox_id: str) -> bool:
        """Free the slot; True when the table does not hold it any more, whoever freed it."""
        if slot := self._held.pop(sandbox_id, None):
            now = self._clock()
            self._past = {name: past for name, past in self._past.items() if past.ended_at > now - REMEMBERED_S}
            self._past[sandbox_id] = Past(ended_at=now, caller_keys=slot.caller_keys)
            self._save()
        return self.get(sandbox_id) is None

    def caller_keys(self, sandbox_id: str) -> tuple[str, ...]:
        """Keys that may open the sandbox's streams, also for a while after its end: a late reader gets its output."""
        if slot := self._held.get(sandbox_id):
            return slot.caller_keys
        past = self._past.get(sandbox_id)
        return past.caller_keys if past else ()

    def remembered(self) -> frozenset[str]:
        """Sandboxes whose output somebody may still ask for."""
        now = self._clock()
        lately = (name for name, past in self._past.items() if past.ended_at > now - REMEMBERED_S)
        return frozenset((*self._held, *lately))

    def get(self, sandbox_id: str) -> Slot | None:
        return self._held.get(sandbox_id)

    def allow(self, sandbox_id: str, caller_key: str) -> None:
        """Add a caller's key to a held slot, or to a sandbox that ended lately; the newest MAX_KEYS stay."""
        if slot := self._held.get(sandbox_id):
            if caller_key not in slot.caller_keys:
                self._put(slot.model_copy(update={"caller_keys": (*slot.caller_keys, caller_key)[-MAX_KEYS:]}))
        elif (past := self._past.get(sandbox_id)) and caller_key not in past.caller_keys:
            keys = (*past.caller_keys, caller_key)[-MAX_KEYS:]
            self._past[sandbox_id] = past.model_copy(update={"caller_keys": keys})
            self._save()

    def held(self) -> list[Slot]:
        self._lapse()
        return [self._held[name] for name in sorted(self._held)]

    def _lapse(self) -> None:
        now = self._clock()
        # One that ends later than a fresh one would was promised before the clock was set back.
        latest = now + RESERVED_S + SET_BACK_S
        lapsed = [
            name for name, slot in self._held.items() if not slot.confirmed and not now <= slot.expires_at <= latest
        ]
        for name in lapsed:
            del self._held[name]
        if lapsed:
            self._save()

    def _put(self, slot: Slot) -> None:
        self._held[slot.sandbox_id] = slot
        self._save()

    def _save(self) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(Table(held=self._held, past=self._past).model_dump_json())
        os.replace(new, self._file)
