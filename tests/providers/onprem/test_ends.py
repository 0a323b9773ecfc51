"""Ends on-prem: free only once seen off, wiped before, and never a machine that another order holds by now."""

from collections.abc import Iterator

import pytest

from providers.contract import HostState, ProviderError
from providers.onprem import OnPrem
from providers.onprem.bmc import Bmc
from providers.onprem.claims import Claims, State
from tests.clouds.cloud import Fault, Machine, Operation
from tests.clouds.rack import unit_of
from tests.clouds.redfish import Redfish
from tests.providers.onprem.racks import SETTLE_S, Crash, again, crashing, order, resets, running, until


@pytest.fixture
def redfish() -> Iterator[Redfish]:
    cloud = Redfish(settle_s=SETTLE_S, boot_s=10)
    yield cloud
    cloud.close()


@pytest.fixture
def provider(redfish: Redfish) -> OnPrem:
    return redfish.provider


def test_a_machine_is_free_only_once_it_was_seen_off(redfish: Redfish, provider: OnPrem) -> None:
    item = running(provider, order())
    redfish.fault(Operation.TERMINATE, Fault.LATE)
    assert provider.terminate(item) is HostState.DELETING
    found = provider.get(order())
    assert found is not None
    assert (found.state, redfish.power("r1u1")) == (HostState.DELETING, "On")
    until(lambda: provider.get(order()) is None)
    assert redfish.power("r1u1") == "Off"
    assert provider.terminate(item) is HostState.GONE
    assert redfish.held() == ()


@pytest.mark.parametrize("took_s", [0, 60])
def test_a_machine_that_turns_on_after_it_was_told_off_is_not_let_go(
    redfish: Redfish, provider: OnPrem, took_s: float
) -> None:
    redfish.fault(Operation.CREATE, Fault.LATE)  # it is asked to turn on, and shows off for a second
    item = provider.create(order())
    (claim,) = provider.claims.held()
    provider.claims.change(claim, asked_at=(claim.asked_at or 0) - took_s)  # so long ago the slow request began
    assert provider.terminate(item) is HostState.DELETING
    found = provider.get(order())
    assert found is not None, "off was believed before the machine came on"
    until(lambda: provider.get(order()) is None)
    assert not redfish.rack.powered(unit_of("r1u1").system)


@pytest.mark.parametrize(
    ("owner", "name", "after"), [(Bmc, "turn_off", False), (Bmc, "turn_off", True), (Claims, "release", False)]
)
def test_an_end_that_died_half_way_goes_on_by_a_look(
    redfish: Redfish, provider: OnPrem, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, after: bool
) -> None:
    item = running(provider, order())
    crashing(monkeypatch, owner, name, after=after)
    dying = OnPrem(provider.ground)
    with pytest.raises(Crash):
        dying.terminate(item)
        until(lambda: dying.get(order()) is None)
    until(lambda: again(provider).list_owned("prod").items == ())
    assert redfish.power("r1u1") == "Off"
    assert again(provider).terminate(item) is HostState.GONE


def test_an_old_item_ends_nothing_of_the_next_holder(redfish: Redfish, provider: OnPrem) -> None:
    redfish.write({f"r1u{unit}": {"size": "other"} for unit in range(2, 13)})
    old = running(provider, order())
    provider.terminate(old)
    until(lambda: provider.get(order()) is None)
    new = running(provider, order("h2"))
    assert (old.id, new.id) == ("r1u1@1", "r1u1@2")
    asked = len(resets(redfish))
    assert provider.terminate(old) is HostState.GONE
    assert len(resets(redfish)) == asked
    assert running(provider, order("h2")) == new


def test_a_wipe_runs_once_before_the_machine_is_free(redfish: Redfish, provider: OnPrem) -> None:
    redfish.write(wipe="boot")
    booted: list[Machine] = []
    redfish.on_boot = booted.append
    item = running(provider, order())
    assert provider.terminate(item) is HostState.DELETING
    states: set[State] = set()

    def gone() -> bool:
        states.update(one.state for one in provider.claims.held())
        return provider.get(order()) is None

    until(gone)
    assert State.WIPING in states
    assert (redfish.wiped, len(booted), redfish.power("r1u1")) == (["r1u1"], 1, "Off")
    assert list((redfish.folder / "boot" / "r1u1").iterdir()) == []
    boots = [body["Boot"] for kind, _, body in redfish.front.bodies if kind == "PATCH System"]
    assert [one["BootSourceOverrideTarget"] for one in boots] == ["Pxe", "Pxe"]
    assert resets(redfish) == ["On", "ForceOff", "On"]


def test_a_wipe_whose_start_was_lost_is_found(redfish: Redfish, provider: OnPrem) -> None:
    redfish.write(wipe="boot")
    item = running(provider, order())
    provider.terminate(item)
    redfish.fault(Operation.CREATE, Fault.LOST)
    failed: list[ProviderError] = []

    def gone() -> bool:
        try:
            return provider.get(order()) is None
        except ProviderError as wrong:
            failed.append(wrong)
            return False

    until(gone)
    assert len(failed) == 1
    assert redfish.wiped
    assert redfish.power("r1u1") == "Off"
