"""Whether a pool grows or shrinks: a pure decision over what is there and who waits."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from paddock.contracts.ground import Choice
    from paddock.contracts.pool import PoolHost, PoolMemory, PoolSpec, PoolView

JOINING = "joining"
COMING = frozenset({"recorded", "creating", "booting", "proving", JOINING})
READY = "ready"
LAG = timedelta(seconds=60)
LEAVING = frozenset({"draining", "terminating"})
OLD = "old"  # in here only: it serves, but it is no longer counted on
AT_ONCE = 100  # a look orders no more than a workflow's history has room for


@dataclass(frozen=True, slots=True)
class Resize:
    """What to do now: `start` so many hosts with these choices, and `drain` those, each in `wait_s`; `why` in words."""

    start: int = 0
    choices: tuple[Choice, ...] = ()
    drain: tuple[str, ...] = ()
    wait_s: int = 0
    spare_since: tuple[datetime, ...] = ()
    why: str = ""
    finding: str = ""


def seen(spec: PoolSpec, view: PoolView, memory: PoolMemory, now: datetime) -> PoolView:
    """The view with what the pool did lately: Temporal's index lags, and a host started twice is paid twice."""
    known = {one.host: one for one in view.hosts}
    for one in memory.lately:
        if now - one.at > LAG:
            continue
        if one.host not in known and one.state in COMING:
            known[one.host] = PoolHost(host=one.host, state=one.state, slots=spec.slots)
        elif one.host in known and one.state in LEAVING:
            known[one.host] = known[one.host].model_copy(update={"state": one.state})
    return view.model_copy(update={"hosts": tuple(known.values())})


def remembered(view: PoolView, memory: PoolMemory, now: datetime) -> PoolMemory:
    """The memory without what is over: a host that the index showed once is not coming when it is gone from there."""
    listed = {one.host for one in view.hosts}
    return memory.model_copy(
        update={
            "avoided": tuple(one for one in memory.avoided if one.until > now),
            "lately": tuple(
                one for one in memory.lately if now - one.at <= LAG and not (one.host in listed and one.state in COMING)
            ),
        }
    )


def capacity(spec: PoolSpec, view: PoolView) -> tuple[int, int]:
    """Free slots now, and those of hosts that are on their way. Who does not answer or leaves has none."""
    free = sum(max(0, one.slots - one.used) for one in view.hosts if one.state == READY)
    return free, spec.slots * sum(_comes(one) for one in view.hosts)


def _comes(host: PoolHost) -> bool:
    """Whether a host is on its way: one that nobody made, and that has not joined, may never answer."""
    return host.state in COMING and (host.made or host.state != JOINING)


def resize(spec: PoolSpec, view: PoolView, memory: PoolMemory, now: datetime) -> Resize:
    """Slots for those who wait and as many more as are to be kept free; the emptiest go when all their slots are spare.

    A host counts against the maximum until it is gone: one that leaves or does not answer is still billed. It counts
    for the minimum while it serves or comes. Each that goes was superfluous for the whole of the idle time, or is old
    and has been replaced.
    """
    size, view = spec.size, _aged(spec, view)
    if late := [one for one in view.hosts if one.state == OLD and one.age_s >= _ages(spec)[1]]:
        return _renew(spec, late, memory.spare_since)
    free, coming = capacity(spec, view)
    wanted = view.waiting + size.free_slots
    serving = sum(one.state == READY for one in view.hosts)
    lasting = serving + sum(_comes(one) for one in view.hosts)
    missing = max(ceil((wanted - free - coming) / spec.slots), size.minimum - lasting, 0)
    if missing:
        return _grow(spec, view, memory, now, missing)
    old = [one for one in view.hosts if one.state == OLD]
    if old and free >= wanted and serving >= size.minimum:
        return _renew(spec, old, memory.spare_since)
    spare = _spare(spec, view, free - wanted)
    known = memory.spare_since[: len(spare)]
    since = (*known, *(now for _ in spare[len(known) :]))
    over = min(AT_ONCE, sum(now - one >= timedelta(seconds=size.idle_s) for one in since))
    if not over:
        return Resize(spare_since=since)
    gone = tuple(one.host for one in spare[:over])
    why = f"superfluous since {since[over - 1].isoformat(timespec='seconds')}: {_named(gone)}"
    return Resize(drain=gone, wait_s=size.drain_wait_s, spare_since=since[over:], why=why)


def _ages(spec: PoolSpec) -> tuple[int, int]:
    """From which age on, in seconds, a host is to be replaced, and from which it goes even without a successor."""
    size, whole = spec.size, spec.lifetime_s
    replaced = size.drain_wait_s + spec.boot_s + spec.prove_s
    return whole - min(replaced, whole // 2), whole - _last_wait(spec)


def _last_wait(spec: PoolSpec) -> int:
    """How long sandboxes of an old host may go on, in seconds: its cloud ends it not long after that."""
    return min(spec.size.drain_wait_s, spec.lifetime_s // 3)


def _aged(spec: PoolSpec, view: PoolView) -> PoolView:
    """The view with those as `old` that their cloud will end soon, whoever is on them."""

    def aged(one: PoolHost) -> PoolHost:
        is_old = one.made and one.state == READY and one.age_s >= _ages(spec)[0]
        return one.model_copy(update={"state": OLD}) if is_old else one

    return view.model_copy(update={"hosts": tuple(aged(one) for one in view.hosts)})


def _renew(spec: PoolSpec, old: list[PoolHost], spare_since: tuple[datetime, ...]) -> Resize:
    gone = tuple(one.host for one in old[:AT_ONCE])
    why = f"near the end of its lifetime: {_named(gone)}"
    return Resize(drain=gone, wait_s=_last_wait(spec), spare_since=spare_since, why=why)


def _named(hosts: tuple[str, ...]) -> str:
    named = ", ".join(hosts[:8])
    return f"{named} and {len(hosts) - 8} more" if len(hosts) > 8 else named


def _grow(spec: PoolSpec, view: PoolView, memory: PoolMemory, now: datetime, missing: int) -> Resize:
    size, finding = spec.size, ""
    room = max(0, size.maximum - len(view.hosts))
    start = min(missing, room, AT_ONCE)
    if room < missing and view.waiting:
        finding = f"{view.waiting} sandboxes wait, and the pool may not have more than {size.maximum} hosts"
    if not start:
        return Resize(finding=finding)
    failed = {one.choice: one for one in memory.avoided if one.until > now}
    choices = tuple(one for one in spec.choices if one not in failed)
    if not choices:
        soonest = min(failed[one].until for one in spec.choices)
        whys = ", ".join(f"{one}: {failed[one].why}" for one in spec.choices[:4])
        return Resize(
            finding=f"every choice failed lately ({whys}); the next is tried at {soonest.isoformat(timespec='seconds')}"
        )
    kept = f"{size.free_slots} slots are kept free, {size.minimum} hosts at least"
    return Resize(start=start, choices=choices, why=f"{start} more: {view.waiting} wait, {kept}", finding=finding)


def _spare(spec: PoolSpec, view: PoolView, spare: int) -> list[PoolHost]:
    """The emptiest hosts that may all go: the others that serve have room for what they hold and is kept free."""
    ready = [one for one in view.hosts if one.state == READY]
    found: list[PoolHost] = []
    for one in sorted(ready, key=lambda one: (one.used, one.slots, one.host)):
        size = max(one.slots, one.used)
        if one.made and size <= spare and len(found) < len(ready) - spec.size.minimum:
            found.append(one)
            spare -= size
    return found
