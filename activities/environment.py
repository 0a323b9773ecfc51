"""An environment's ground: what its provider says, asked with that environment's credentials."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import owned
from activities.running import beating
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.ground import Attempt, Ended, EndItem, GroundInventory, Machine
from paddock.contracts.hosts import Fenced, HostSpec, Undone
from paddock.contracts.report import Gone, Receipt
from providers.contract import ErrorClass, HostOrder, HostProvider, HostSize, HostState, Item, ProviderError

T = TypeVar("T")
log = logging.getLogger(__name__)
LOOK_AGAIN_S = 2.0
SLOWEST_LOOK_S = 15.0
# A machine that was ordered a moment ago may not be seen by every look yet, so that one look proves nothing.
LOOKS = 2


def no_user_data(attempt: Attempt) -> str:
    """What a machine is told of itself where its image knows everything already."""
    del attempt
    return ""


@dataclass(frozen=True, slots=True)
class EnvironmentActivities:
    """Verbs on one environment's provider."""

    environment: str
    provider: HostProvider
    controller: str = "paddock"
    user_data: Callable[[Attempt], str] = no_user_data

    @activity.defn
    async def create_host(self, attempt: Attempt) -> Machine:
        """Order the machine of an attempt; the same attempt twice is one machine. Accepted, not booted."""
        order = self._order(attempt)
        async with beating():
            with _as_failures():
                item = await _on_thread(lambda: self.provider.create(order))
            return _machine(item)

    @activity.defn
    async def watch_host(self, attempt: Attempt) -> Machine:
        """Until the provider says that the machine runs, or that it never will."""
        order = self._order(attempt)
        async with beating():
            while True:
                with _as_failures():
                    item = await _on_thread(lambda: self.provider.get(order))
                if item and item.state is not HostState.PENDING:
                    return _machine(item)
                await asyncio.sleep(LOOK_AGAIN_S)

    @activity.defn
    async def terminate_host(self, attempt: Attempt) -> Undone:
        """End everything that this attempt may have made, and look until it is gone; retried until it answers.

        Gone is what the provider does not find by the attempt's own name, nor in a complete list of what is tagged as
        the attempt's, at two looks that follow each other; and, when nobody knows whether it was ordered, not before
        what was on its way there must have shown.
        """
        order, seen, gone = self._order(attempt), dict[str, Item](), 0
        settled = activity.info().scheduled_time + timedelta(seconds=attempt.settle_s)
        async with beating(undo=True):
            while gone < LOOKS or (not seen and datetime.now(UTC) < settled):
                left = await self._left(order)
                seen |= {item.id: item for item in left}
                for item in left:
                    with _patiently(item):
                        await _on_thread(lambda item=item: self.provider.terminate(item))  # type: ignore[misc]
                gone = 0 if left else gone + 1
                await asyncio.sleep(LOOK_AGAIN_S)
        names = {(item.kind, item.name or item.id) for item in seen.values()} | {("host", order.name)}
        checked_by = f"{LOOKS} looks of the {self.provider.name} provider: neither by its name nor in its complete list"
        now = datetime.now(UTC)
        return Undone(
            receipts=tuple(
                Receipt(resource=kind, id=name, gone=Gone.PROVED, checked_by=checked_by, at=now)
                for kind, name in sorted(names)
            )
        )

    @activity.defn
    async def list_ground(self, environment: str) -> GroundInventory:
        """What the provider holds for this environment's controller, and whether all of it could be read."""
        del environment
        async with beating():
            with _as_failures(), _without_words("list what is owned"):
                found = await _on_thread(lambda: self.provider.list_owned(self.controller))
            found = replace(found, items=tuple(filter(self._here, found.items)))
            sizes: Sequence[HostSize] = ()
            if any(item.size for item in found.items):
                try:
                    sizes = await _on_thread(self.provider.catalogue)
                except ProviderError as wrong:
                    log.warning("no prices: %s", wrong)
            if not found.complete:
                log.warning("the list of the %s provider lacks %s", self.provider.name, "; ".join(found.missing_scopes))
            ground = owned.Ground(self.environment, self.provider.name, self.controller)
            return owned.inventory(ground, found, sizes, datetime.now(UTC))

    @activity.defn
    async def end_item(self, ask: EndItem) -> Ended:
        """End a machine with its parts, or something that no machine holds, and look until all of it is gone.

        The look that finds it is the last one before its end: with a protect tag or other tags by then it is spared.
        Gone is what two complete lists in a row lack; a machine must not be found by its attempt's name either.
        """
        judged, begun, gone, wait_s = ask.item, False, 0, LOOK_AGAIN_S
        async with beating(undo=True):
            while gone < LOOKS:
                with _as_failures(again=True), _without_words(f"look at the {judged.kind} {judged.id}"):
                    found = await _on_thread(lambda: self.provider.list_owned(self.controller))
                    there = owned.by_key((*found.items, *await self._by_name(ask)))
                if not begun and (why := owned.changed(there, judged, self.controller)):
                    return Ended(spared=why)
                left = owned.left(there, judged)
                begun = begun or bool(left)
                # A part is ended by itself only once its machine is gone: until then the provider refuses.
                for item in left[:1] if owned.key(judged) in there else left:
                    with _patiently(item), _without_words(f"end the {item.kind} {item.id}"):
                        await _on_thread(lambda item=item: self.provider.terminate(item))  # type: ignore[misc]
                gone = gone + 1 if not left and found.complete else 0
                await asyncio.sleep(LOOK_AGAIN_S if gone else wait_s)
                wait_s = min(2 * wait_s, SLOWEST_LOOK_S)
        checked_by = f"{LOOKS} looks of the {self.provider.name} provider: not in its complete list"
        now = datetime.now(UTC)
        return Ended(
            receipts=tuple(
                Receipt(resource=kind, id=name, gone=Gone.PROVED, checked_by=checked_by, at=now)
                for kind, name in ask.resources
            )
        )

    @activity.defn
    async def fence_host(self, spec: HostSpec) -> Fenced:
        """End the machine of a lost host, and answer once the provider's own list says that it is gone.

        Not `gone` when this provider holds no such machine: then nobody can end it from here.
        """
        async with beating(undo=True):
            held = await self._machines(spec)
            if not held:
                return Fenced(checked_by=f"the {self.provider.name} provider holds no machine of host {spec.host}")
            while held:
                for item in held:
                    try:
                        await asyncio.to_thread(self.provider.terminate, item)
                    except ProviderError as wrong:
                        if not wrong.again:
                            raise
                        log.warning("ending %s: %s", item.name, wrong)
                await asyncio.sleep(LOOK_AGAIN_S)
                held = await self._machines(spec)
            names = f"no machine of host {spec.host} in the complete list of the {self.provider.name} provider"
            return Fenced(gone=True, checked_by=names)

    async def _by_name(self, ask: EndItem) -> tuple[Item, ...]:
        """The judged machine as the provider finds it by its attempt, which may be surer than its lists."""
        if ask.item.kind != "host":
            return ()
        order = owned.order(ask, self.controller, datetime.now(UTC))
        if order.name != ask.item.name:
            return ()  # nobody made it by an order of ours: only lists know it
        found = await _on_thread(lambda: self.provider.get(order))
        return (found,) if found else ()

    async def _left(self, order: HostOrder) -> list[Item]:
        """What of an attempt is not gone. Raises ApplicationError while the provider's list is not complete."""
        with _as_failures(again=True):
            found = await _on_thread(lambda: self.provider.list_owned(self.controller))
            try:
                machine = await _on_thread(lambda: self.provider.get(order))
            except ProviderError as wrong:
                if wrong.kind is not ErrorClass.INVALID:
                    raise
                machine = None  # a zone that is none, say: `create` made nothing there, and the list has the last word
        if not found.complete:
            scopes = ", ".join(found.missing_scopes)
            raise PaddockError(ErrorKind.UNREACHABLE, f"the {self.provider.name} provider's list lacks {scopes}")
        wanted = (order.host, order.attempt)
        mine = [item for item in found.items if (item.host, item.attempt) == wanted and self._here(item)]
        if machine and machine.id not in {item.id for item in mine}:
            mine.insert(0, machine)
        return [item for item in mine if item.state is not HostState.GONE]

    def _here(self, item: Item) -> bool:
        """Whether it is this environment's: others may share the account, and a host's name may be in several."""
        return item.environment in ("", self.environment)

    def _order(self, attempt: Attempt) -> HostOrder:
        choice = attempt.choice
        return HostOrder(
            controller=self.controller,
            environment=self.environment,
            host=attempt.host,
            attempt=attempt.attempt,
            size=choice.size,
            zone=choice.zone,
            deadline=attempt.deadline,
            pool=attempt.pool,
            image=choice.image,
            user_data=self.user_data(attempt),
            spot=choice.spot,
        )

    async def _machines(self, spec: HostSpec) -> list[Item]:
        """What is not gone of the host's, from a list that is complete: absence from another proves nothing."""
        found = await asyncio.to_thread(self.provider.list_owned, self.controller)
        mine = [
            item
            for item in found.items
            if item.host == spec.host and self._here(item) and item.state is not HostState.GONE
        ]
        if not mine and not found.complete:
            raise PaddockError(
                ErrorKind.UNREACHABLE,
                f"the {self.provider.name} provider's list is not complete: {', '.join(found.missing_scopes)}",
            )
        return mine


def _machine(item: Item) -> Machine:
    return Machine(id=item.id, name=item.name, state=item.state, why=item.why[:1000])


async def _on_thread(call: Callable[[], T]) -> T:
    """A blocking call to its end, also when this activity is cancelled: what it makes must not come behind the undo."""
    task = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


@contextlib.contextmanager
def _as_failures(again: bool = False) -> Iterator[None]:
    """A provider's refusal as a failure whose type is its class; with `again`, one that is always tried again."""
    try:
        yield
    except ProviderError as wrong:
        advice = wrong.retry_after_s
        raise ApplicationError(
            f"{wrong} ({wrong.code})" if wrong.code else str(wrong),
            type=wrong.kind.value,
            non_retryable=not (again or wrong.again),
            next_retry_delay=timedelta(seconds=advice) if advice else None,
        ) from None


@contextlib.contextmanager
def _without_words(doing: str) -> Iterator[None]:
    """A provider's refusal by its class and code only: what a cloud says of itself is for this worker's log."""
    try:
        yield
    except ProviderError as wrong:
        log.warning("%s: %s", doing, wrong)
        words, code = f"{doing}: {wrong.kind}", owned.word(wrong.code)
        raise ProviderError(
            wrong.kind, words, code=code, blame=wrong.blame, retry_after_s=wrong.retry_after_s
        ) from None


@contextlib.contextmanager
def _patiently(item: Item) -> Iterator[None]:
    """One that cannot be ended just now is asked again at the next look, and keeps no other from its end."""
    try:
        yield
    except ProviderError as wrong:
        if not wrong.again:
            with _as_failures(again=True):
                raise
        log.warning("ending %s %s: %s", item.kind, item.name or item.id, wrong)
