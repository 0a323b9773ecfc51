"""The on-prem provider against emulated racks: one machine for one order, crashes, refusals, people, and lists."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from providers.contract import Blame, ErrorClass, HostOrder, HostState, Item, ProviderError
from providers.onprem import OnPrem
from providers.onprem.bmc import Bmc
from providers.onprem.claims import Claims
from tests.clouds.cloud import Fault, Machine, Operation
from tests.clouds.rack import unit_of
from tests.clouds.redfish import Redfish
from tests.providers.onprem.racks import SETTLE_S, Crash, again, certificate, crashing, order, resets, running, until


@pytest.fixture
def redfish() -> Iterator[Redfish]:
    cloud = Redfish(settle_s=SETTLE_S, boot_s=10)
    yield cloud
    cloud.close()


@pytest.fixture
def provider(redfish: Redfish) -> OnPrem:
    return redfish.provider


# Create


def test_an_order_is_one_machine_turned_on_once(redfish: Redfish, provider: OnPrem) -> None:
    first = provider.create(order())
    assert provider.create(order()).id == again(provider).create(order()).id == first.id
    assert (first.state, first.name, first.zone, first.host) == (HostState.PENDING, order().name, "rack1", "h1")
    until(lambda: redfish.power("r1u1") == "On")
    assert provider.create(order()).state is HostState.RUNNING
    assert resets(redfish) == ["On"]


def test_many_at_once_get_a_machine_each(redfish: Redfish, provider: OnPrem) -> None:
    orders = [order(f"h{number}", zone="") for number in range(6)] * 2
    start = threading.Barrier(len(orders))

    def create(wanted: HostOrder) -> Item:
        start.wait()
        return again(provider).create(wanted)

    with ThreadPoolExecutor(len(orders)) as pool:
        items = list(pool.map(create, orders))
    assert len({one.id for one in items}) == len(redfish.held()) == 6
    assert resets(redfish) == ["On"] * 6


@pytest.mark.parametrize(
    ("owner", "name", "after", "boots"),
    [
        (Claims, "claim", True, 1),
        (Bmc, "look", True, 1),
        (Bmc, "turn_on", False, 1),
        (Bmc, "turn_on", True, 1),
    ],
)
def test_whatever_a_crash_leaves_is_listed_and_create_goes_on(
    redfish: Redfish, provider: OnPrem, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, after: bool, boots: int
) -> None:
    booted: list[Machine] = []
    redfish.on_boot = booted.append
    crashing(monkeypatch, owner, name, after=after)
    with pytest.raises(Crash):
        OnPrem(provider.ground).create(order())
    if after and name == "turn_on":
        until(lambda: booted)
    listed = again(provider).list_owned("prod")
    assert [(one.host, one.attempt) for one in listed.items] == [("h1", 1)]
    assert listed.complete
    assert running(again(provider), order()).id == listed.items[0].id == "r1u1@1"
    assert len(redfish.held()) == len(booted) == boots


def test_a_lost_answer_turns_on_no_second_machine(redfish: Redfish, provider: OnPrem) -> None:
    redfish.fault(Operation.CREATE, Fault.LOST)
    with pytest.raises(ProviderError) as wrong:
        provider.create(order())
    assert wrong.value.again
    until(lambda: redfish.power("r1u1") == "On")
    assert running(provider, order()).id == "r1u1@1"
    assert resets(redfish) == ["On"]


def test_a_claim_that_was_never_turned_on_ends_without_its_bmc(redfish: Redfish, provider: OnPrem) -> None:
    redfish.write({"r1u1": {"bmc": "http://127.0.0.1:9"}})
    with pytest.raises(ProviderError, match="does not answer") as wrong:
        provider.create(order())
    assert wrong.value.kind is ErrorClass.TRANSIENT
    (item,) = provider.list_owned("prod").items
    assert provider.terminate(item) is HostState.GONE
    assert provider.create(order(attempt=2)).id == "r1u2@1"  # the dead one rested shortest


def test_a_machine_that_others_turned_on_is_left_alone(redfish: Redfish, provider: OnPrem) -> None:
    redfish.press("r1u1", "On")
    until(lambda: redfish.power("r1u1") == "On")
    assert provider.create(order()).id == "r1u2@1"
    for unit in range(3, 13):
        redfish.press(f"r1u{unit}", "On")
    until(lambda: all(redfish.power(f"r1u{unit}") == "On" for unit in range(3, 13)))
    with pytest.raises(ProviderError) as wrong:
        provider.create(order("h2"))
    assert wrong.value.kind is ErrorClass.CAPACITY
    assert "1 claimed, and r1u3, r1u4, r1u5" in str(wrong.value)
    assert resets(redfish) == ["On"]
    assert len(provider.claims.held()) == 1


def test_what_the_machine_reads_is_there_before_it_is_on_and_gone_after(redfish: Redfish, provider: OnPrem) -> None:
    booted: list[Machine] = []
    redfish.on_boot = booted.append
    item = running(provider, order(image="debian-13"))
    assert booted[0].user_data == order().user_data
    folder = redfish.folder / "boot" / "r1u1"
    files = {one.name: one for one in folder.iterdir()}
    assert files.keys() == {"user-data", "meta-data", "image"}
    assert {one.stat().st_mode & 0o777 for one in files.values()} == {0o600}
    assert files["meta-data"].read_text().splitlines()[0] == f"instance-id: {order().name}"
    assert files["image"].read_text() == "debian-13\n"
    provider.terminate(item)
    assert list(folder.iterdir()) == []


# Refusals


def refusal(deed: Callable[[], object], redfish: Redfish) -> ProviderError:
    with pytest.raises(ProviderError) as wrong:
        deed()
    assert redfish.password not in f"{wrong.value}{wrong.value!r}{wrong.value.code}{wrong.value.__cause__!r}"
    return wrong.value


def test_unknown_sizes_and_zones_name_the_known_ones_and_kvm_is_needed(redfish: Redfish, provider: OnPrem) -> None:
    for changes, words in (
        ({"size": "huge"}, "there is no size 'huge' in the inventory; known: metal-8, plain-4"),
        ({"zone": "rack9"}, "there is no zone 'rack9' in the inventory; known: rack1, rack2"),
        ({"size": "plain-4"}, "size plain-4 is without KVM by the inventory"),
    ):
        wrong = refusal(lambda changes=changes: provider.create(order(**changes)), redfish)  # type: ignore[misc]
        assert (wrong.kind, wrong.blame) == (ErrorClass.INVALID, Blame.CALLER)
        assert words in str(wrong)
    assert redfish.calls() == {}


def test_a_wrong_password_and_an_unknown_system_are_for_a_person(redfish: Redfish, provider: OnPrem) -> None:
    redfish.write({"r2u1": {"system": "none"}})
    wrong = refusal(lambda: provider.create(order("h2", zone="rack2")), redfish)
    assert (wrong.kind, wrong.blame) == (ErrorClass.INVALID, Blame.CALLER)
    assert "has no system /redfish/v1/Systems/none" in str(wrong)
    (redfish.folder / "password").write_text("wrong")
    wrong = refusal(lambda: provider.create(order()), redfish)
    assert (wrong.kind, wrong.blame, wrong.code.split()[0]) == (ErrorClass.AUTH, Blame.CALLER, "401")
    (redfish.folder / "password").unlink()
    assert refusal(lambda: provider.create(order()), redfish).kind is ErrorClass.AUTH


def test_bmcs_are_reached_by_tls_that_is_checked(tmp_path: Path) -> None:
    ours = certificate(tmp_path, "ours")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours)
    redfish = Redfish(ssl=context, ca=ours)
    try:
        assert running(redfish.provider, order()).state is HostState.RUNNING
        redfish.ca = None
        redfish.write()
        wrong = refusal(lambda: redfish.provider.create(order("h2")), redfish)
        assert (wrong.kind, wrong.code) == (ErrorClass.AUTH, "tls")
    finally:
        redfish.close()


def test_an_order_with_other_words_and_an_ended_one_are_conflicts(redfish: Redfish, provider: OnPrem) -> None:
    item = provider.create(order())
    assert refusal(lambda: provider.create(order(user_data="other")), redfish).kind is ErrorClass.CONFLICT
    provider.terminate(item)
    until(lambda: provider.get(order()) is None)
    assert refusal(lambda: provider.create(order()), redfish).kind is ErrorClass.CONFLICT


def test_items_that_are_none_are_refused(redfish: Redfish, provider: OnPrem) -> None:
    for id_, kind in (("r1u1", ErrorClass.INVALID), ("../x@1", ErrorClass.INVALID), ("r1u1@1", ErrorClass.CONFLICT)):
        item = Item(id=id_, kind="host", name="x", state=HostState.RUNNING)
        assert refusal(lambda item=item: provider.terminate(item), redfish).kind is kind  # type: ignore[misc]


# People


def test_a_machine_that_a_person_turned_off_says_so_and_can_be_ended(redfish: Redfish, provider: OnPrem) -> None:
    item = running(provider, order())
    redfish.press("r1u1", "ForceOff")
    until(lambda: redfish.power("r1u1") == "Off")
    found = provider.get(order())
    assert found is not None
    assert (found.state, found.why) == (HostState.DELETING, "it was turned off, and not by Paddock")
    assert provider.create(order()).state is HostState.DELETING
    assert resets(redfish) == ["On"]
    assert provider.terminate(item) is HostState.GONE


def test_a_power_cycle_by_a_person_is_noticed(redfish: Redfish, provider: OnPrem) -> None:
    system = unit_of("r1u1").system
    assert running(provider, order()).why == ""
    asked = provider.claims.held()[0].asked_at or 0.0
    until(lambda: time.time() > asked + SETTLE_S)  # until then it is taken for our own
    assert running(provider, order()).why == ""
    old = redfish.rack.reset_at(system)
    redfish.press("r1u1", "ForceRestart")
    until(lambda: redfish.power("r1u1") == "On" and redfish.rack.reset_at(system) != old)
    found = provider.get(order())
    assert found is not None
    assert found.state is HostState.RUNNING
    assert "was reset at" in found.why
    assert "not by Paddock" in found.why


# Lists and sizes


def test_a_list_names_the_bmc_that_does_not_answer_and_keeps_its_machine(redfish: Redfish, provider: OnPrem) -> None:
    running(provider, order())
    running(provider, order("h2", zone="rack2"))
    running(provider, order("h3", controller="other"))
    redfish.write({"r2u1": {"bmc": "http://127.0.0.1:9"}})
    found = provider.list_owned("prod")
    assert {(one.id, one.state) for one in found.items} == {
        ("r1u1@1", HostState.RUNNING),
        ("r2u1@1", HostState.RUNNING),
    }
    assert (found.complete, found.missing_scopes) == (False, ("rack2/r2u1",))
    assert "does not answer" in next(one.why for one in found.items if one.id == "r2u1@1")


def test_a_broken_inventory_hides_no_claim(redfish: Redfish, provider: OnPrem) -> None:
    item = running(provider, order())
    (redfish.folder / "inventory.yaml").write_text("machines: [")
    found = provider.list_owned("prod")
    assert ([one.id for one in found.items], found.complete, found.missing_scopes) == ([item.id], False, ("inventory",))
    redfish.write({"r1u1": {"name": "renamed"}})
    found = provider.list_owned("prod")
    assert (found.complete, found.missing_scopes) == (False, ("rack1/r1u1",))
    assert "lists it no more" in found.items[0].why
    redfish.write({"r1u1": {"protected": True}})
    assert provider.list_owned("prod").items[0].protected


def test_sizes_are_counted(redfish: Redfish, provider: OnPrem) -> None:
    provider.create(order())
    counts = provider.counts()
    assert (counts["metal-8"].all, counts["metal-8"].free) == (24, 23)
    assert [(one.name, one.vcpu, one.kvm, one.zones) for one in provider.catalogue()] == [
        ("metal-8", 8, "metal", ("rack1", "rack2")),
        ("plain-4", 4, "none", ("rack1", "rack2")),
    ]
