"""Every provider's tests have the same things at hand: its emulated cloud, and a bench that leaves nothing behind."""

import importlib
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar
from uuid import uuid4

import pytest

from providers.contract import TAG_VALUE, HostOrder, HostState, Item, ProviderError
from tests.clouds.cloud import Cloud, Held

T = TypeVar("T")
CLOUDS = {
    "aws": ("tests.clouds.ec2", "Ec2"),
    "gcp": ("tests.clouds.gce", "Gce"),
    "azure": ("tests.clouds.arm", "Arm"),
    "onprem": ("tests.clouds.redfish", "Redfish"),
}
PATIENCE_S = 30.0
# What cannot happen at a provider, and why.
NOT_HERE = {
    ("aws", "retry-after"): "EC2 throttles without saying for how long",
    ("gcp", "nic"): "an interface at Google is a part of its machine and never alone",
    ("onprem", "quota"): "machines of one's own have no quota",
    ("onprem", "disk"): "a disk of one's own never leaves its machine",
    ("onprem", "nic"): "an interface of one's own never leaves its machine",
    ("onprem", "address"): "an address of one's own costs nothing and is not Paddock's",
    ("onprem", "price"): "the owner writes prices into the inventory",
}
AT_ONCE_S = 0.5
FAILED = pytest.StashKey[bool]()
# Benches whose ends took longer than that: the next ones do not wait, the run's end does.
LEFT: list["Bench"] = []


class Bench:
    """One test at one cloud: orders of a controller that no other test has, and their end."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.provider = cloud, cloud.provider
        self.controller = self.another()
        self._controllers = [self.controller]
        self._before = {one.id for one in cloud.held()}

    @staticmethod
    def another() -> str:
        """A controller's name that nobody has."""
        return f"c-{uuid4().hex[:12]}"

    def order(self, **changes: object) -> HostOrder:
        """A good order for a new host, with changes."""
        order = HostOrder(
            controller=self.controller,
            environment="tests",
            host=f"h-{uuid4().hex[:12]}",
            attempt=1,
            size=self.cloud.size,
            zone=self.cloud.zones[0],
            deadline=datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2),
            user_data="#cloud-config\nhostname: paddock\n",
        )
        order = replace(order, **changes)  # type: ignore[arg-type]
        self._controllers.append(order.controller)
        return order

    def plant(self, kind: str, **tags: str) -> str:
        """A resource that no provider made, with tags in their Python spelling (`paddock_host`)."""
        named = {key.replace("_", "-"): value for key, value in tags.items()}
        self._controllers.append(named.get("paddock-controller", ""))
        return self.cloud.plant(kind, named)

    def running(self, order: HostOrder) -> Item:
        """The machine of an order, once it runs."""
        return until(lambda: self._seen(order, HostState.RUNNING), "it runs")

    def looked(self, order: HostOrder) -> Item | None:
        """The machine; None also while the provider says to look again."""
        return self._asked(lambda: self.provider.get(order))

    def gone(self, order: HostOrder) -> bool:
        """Waits until the provider says that the order's machine is not there."""
        return until(lambda: self._gone(order), "it is gone")

    def end(self, item: Item) -> HostState:
        """Ends it, as often as the provider says that it must be asked again."""
        return until(lambda: self._asked(lambda: self.provider.terminate(item)), f"{item.id} is ended")

    def listed(self, controller: str = "") -> tuple[Item, ...]:
        """What the provider lists, which must be all."""
        inventory = self.provider.list_owned(controller or self.controller)
        assert inventory.complete, inventory.missing_scopes
        return inventory.items

    def new(self) -> tuple[Held, ...]:
        """What exists now and did not when the test began, by the cloud's own word."""
        return tuple(one for one in self.cloud.held() if one.id not in self._before)

    def machines(self, order: HostOrder) -> list[str]:
        """The machines of one host, any attempt, by the cloud's own word."""
        held = (one for one in self.cloud.held() if one.kind == "host")
        return [one.id for one in held if one.tags.get("paddock-host") == order.host]

    def close(self, within_s: float = PATIENCE_S) -> bool:
        """Ends all that the test's controllers own; False when that is still going on after `within_s`."""
        deadline = time.monotonic() + within_s
        for controller in {one for one in self._controllers if TAG_VALUE.fullmatch(one) and one}:
            while not self._cleared(controller):
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.02)
        return True

    def _cleared(self, controller: str) -> bool:
        inventory = self.provider.list_owned(controller)
        # Machines first: what they hold goes with them.
        machines = [item for item in inventory.items if item.kind == "host"]
        for item in machines or inventory.items:
            self._asked(partial(self.provider.terminate, item))
        return inventory.complete and not inventory.items

    def _seen(self, order: HostOrder, state: HostState) -> Item | None:
        item = self.looked(order)
        return item if item and item.state is state else None

    def _gone(self, order: HostOrder) -> bool:
        try:
            item = self.provider.get(order)
        except ProviderError as error:
            if not error.again:
                raise
            return False
        return item is None or item.state is HostState.GONE

    @staticmethod
    def _asked(call: Callable[[], T]) -> T | None:
        try:
            return call()
        except ProviderError as error:
            if not error.again:
                raise
            return None


def until(look: Callable[[], T | None], what: str) -> T:
    """The first answer that is true, within PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"after {PATIENCE_S:g} s it is not so that {what}"
        time.sleep(0.01)


def only_where_it_can_happen(cloud: Cloud, what: str) -> None:
    reason = NOT_HERE.get((cloud.name, what))
    if reason:
        pytest.skip(f"{cloud.name}: {reason}")


def refused(call: Callable[[], object]) -> ProviderError:
    """The error that a call must raise."""
    with pytest.raises(ProviderError) as caught:
        call()
    return caught.value


@pytest.fixture(scope="session")
def running() -> Iterator[dict[str, Cloud]]:
    """The emulators that run by now."""
    clouds: dict[str, Cloud] = {}
    yield clouds
    left = [bench.controller for bench in LEFT if bench.cloud in clouds.values() and not bench.close()]
    assert not left, f"after {PATIENCE_S:g} s something is left of {left}"
    for cloud in clouds.values():
        cloud.close()


@pytest.fixture(params=tuple(CLOUDS))
def cloud(request: pytest.FixtureRequest, running: dict[str, Cloud]) -> Iterator[Cloud]:
    """Each of the four clouds in turn; after a failed test a new one, as a fault may be left in the old."""
    name = request.param
    if name not in running:
        module, kind = CLOUDS[name]
        running[name] = getattr(importlib.import_module(module), kind)()
    yield running[name]
    if request.node.stash.get(FAILED, False):
        running.pop(name).close()


@pytest.fixture
def bench(cloud: Cloud, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A bench at the cloud, cleared afterwards."""
    LEFT[:] = [one for one in LEFT if one.cloud is not cloud or not one.close(0)]
    bench = Bench(cloud)
    yield bench
    cloud.on_boot = cloud.on_end = None
    if not request.node.stash.get(FAILED, False) and not bench.close(AT_ONCE_S):
        LEFT.append(bench)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Notes for the fixtures whether their test failed."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report
