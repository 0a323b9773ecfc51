"""What one run does: sandboxes, faults and moments, all of it from the run's number alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

MOST_STOPPED_S = 6.0  # all stops of one run together: a host that is silent for 23 s is declared lost
LEASE_S = 30
LEASE_SHARE = 1 / 12
LOSS_SHOWS_S = 8.0


class Victim(StrEnum):
    """A process that is hit."""

    WORKER = "worker"
    CONTROL = "control"
    ENVIRONMENT = "environment"
    KEEPER = "keeper"
    SUPERVISOR = "supervisor"
    VMM = "vmm"
    RECORDER = "recorder"
    BROKER = "broker"
    RELAY = "relay"
    UP = "up"
    TEMPORAL = "temporal"


VICTIMS = tuple(Victim)
OF_ONE_SANDBOX = frozenset({Victim.SUPERVISOR, Victim.VMM})


class Kind(StrEnum):
    """What a sandbox is there for."""

    TASK = "task"
    SESSION = "session"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    LEASE = "lease"


@dataclass(frozen=True, slots=True)
class Fault:
    """One blow: kill -9, or with `stop_s` a SIGSTOP for so long; `sandbox` is whose supervisor or VMM."""

    at_s: float
    victim: Victim
    stop_s: float = 0.0
    sandbox: int = 0

    @property
    def how(self) -> str:
        return "stop" if self.stop_s else "kill"

    def __str__(self) -> str:
        whose = f" of sandbox {self.sandbox}" if self.victim in OF_ONE_SANDBOX else ""
        long = f" for {self.stop_s:.2f} s" if self.stop_s else ""
        return f"{self.at_s:6.2f} s  {self.how} {self.victim}{whose}{long}"


@dataclass(frozen=True, slots=True)
class Work:
    """One sandbox: when it starts, when somebody ends it (`stopped`, `cancelled`), how long it rests (`session`)."""

    kind: Kind
    start_s: float
    end_s: float = 0.0
    rest_s: float = 0.0

    def __str__(self) -> str:
        end = f", ended at {self.end_s:.2f} s" if self.end_s else ""
        rest = f", rests {self.rest_s:.2f} s after each task" if self.rest_s else ""
        return f"{self.start_s:6.2f} s  {self.kind}{end}{rest}"


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. Seconds count from its beginning."""

    number: int
    works: tuple[Work, ...]
    faults: tuple[Fault, ...]

    @property
    def alone(self) -> Victim | None:
        """The victim of a run with one single kill."""
        return self.faults[0].victim if len(self.faults) == 1 and not self.faults[0].stop_s else None

    def __str__(self) -> str:
        works = [f"  sandbox {index}: {work}" for index, work in enumerate(self.works)]
        return "\n".join([f"run {self.number}", *works, *(f"  fault:     {fault}" for fault in self.faults)])


def plan(number: int) -> Plan:
    """The run of this number. Every third has one kill alone, so that in 33 numbers each victim has had it."""
    chance = random.Random(f"paddock-faults-{number}")
    alone = number % 3 == 0
    count = chance.choices((1, 2, 3, 4), (2, 3, 2, 1))[0]
    lease = not alone and chance.random() < LEASE_SHARE
    begin = LEASE_S - 6.0 if lease else 0.0
    works = [_work(chance, begin, told=not alone) for _ in range(count)]
    if lease:
        works[0] = Work(Kind.LEASE, 0.0)
    if alone:
        victim = VICTIMS[number // 3 % len(VICTIMS)]
        faults = [Fault(round(chance.uniform(0.1, 4.5), 2), victim, 0.0, chance.randrange(count))]
    else:
        moments = sorted(_moments(chance, chance.choices((1, 2, 3, 4), (2, 3, 3, 2))[0], begin, works))
        faults = [_fault(chance, moment, count) for moment in moments]
    stopped = sum(fault.stop_s for fault in faults)
    if stopped > MOST_STOPPED_S:
        short = [round(fault.stop_s * MOST_STOPPED_S / stopped, 2) for fault in faults]
        faults = [Fault(f.at_s, f.victim, stop_s, f.sandbox) for f, stop_s in zip(faults, short, strict=True)]
    return Plan(number, tuple(_resting(number, works, faults if alone else [])), tuple(faults))


def _resting(number: int, works: list[Work], alone: list[Fault]) -> Iterator[Work]:
    """Half of all sessions rest between tasks; one that is to be killed rests so long that only its loss ends that."""
    chance = random.Random(f"paddock-rests-{number}")
    killed = {fault.sandbox for fault in alone if fault.victim in OF_ONE_SANDBOX}
    for index, work in enumerate(works):
        rest_s = round(chance.choice((0.0, chance.uniform(0.2, 2.6))), 2)
        if work.kind is Kind.SESSION:
            yield replace(work, rest_s=LOSS_SHOWS_S if index in killed else rest_s)
        else:
            yield work


def _work(chance: random.Random, begin: float, *, told: bool) -> Work:
    kinds = (Kind.TASK, Kind.SESSION, Kind.STOPPED, Kind.CANCELLED)
    kind = chance.choices(kinds, (5, 3, 1, 1) if told else (5, 3, 0, 0))[0]
    start = round(begin + chance.choice((0.0, 0.0, chance.uniform(0, 1.5))), 2)
    end = round(start + chance.uniform(0.1, 4.5), 2) if kind in (Kind.STOPPED, Kind.CANCELLED) else 0.0
    return Work(kind, start, end)


def _moments(chance: random.Random, count: int, begin: float, works: list[Work]) -> list[float]:
    """Spread over the run, all at once, or around somebody's start or end."""
    how = chance.choice(("spread", "spread", "burst", "edges"))
    if how == "burst":
        at = begin + chance.uniform(0.1, 5.0)
        return [round(at + chance.uniform(0, 0.4), 2) for _ in range(count)]
    if how == "edges":
        edges = [edge for work in works for edge in (work.start_s + 0.4, work.end_s or work.start_s + 5.5)]
        return [round(max(0.0, chance.choice(edges) + chance.uniform(-0.5, 0.8)), 2) for _ in range(count)]
    return [round(begin + chance.uniform(0.1, 6.0), 2) for _ in range(count)]


def _fault(chance: random.Random, at_s: float, count: int) -> Fault:
    weights = [1 if victim in (Victim.UP, Victim.ENVIRONMENT) else 2 for victim in VICTIMS]
    victim = chance.choices(VICTIMS, weights)[0]
    stop_s = round(chance.uniform(0.5, 4.0), 2) if chance.random() < 0.35 else 0.0
    return Fault(at_s, victim, stop_s, chance.randrange(count))
