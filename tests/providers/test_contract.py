"""Orders are deterministic, errors say whether to try again, and a joined machine is never made or ended."""

from datetime import UTC, datetime
from re import fullmatch

import pytest

from providers.contract import ErrorClass, HostOrder, HostProvider, HostState, Item, ProviderError
from providers.joined import Joined


def order(**changes: object) -> HostOrder:
    fields: dict[str, object] = {
        "controller": "prod",
        "environment": "local",
        "host": "h1",
        "attempt": 1,
        "size": "any",
        "zone": "",
        "deadline": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return HostOrder(**(fields | changes))  # type: ignore[arg-type]


def test_the_same_order_has_the_same_token_and_name() -> None:
    assert (order().token, order().name) == (order().token, order().name)


@pytest.mark.parametrize("change", [{"controller": "other"}, {"environment": "other"}, {"host": "h2"}, {"attempt": 2}])
def test_another_controller_environment_host_or_attempt_is_another_machine(change: dict[str, object]) -> None:
    assert order(**change).token != order().token


def test_names_fit_every_cloud() -> None:
    assert fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", order(attempt=12).name)


def test_only_throttling_and_passing_failures_are_tried_again() -> None:
    again = {kind for kind in ErrorClass if ProviderError(kind, "").again}
    assert again == {ErrorClass.THROTTLED, ErrorClass.TRANSIENT}


def test_a_joined_machine_is_neither_made_nor_ended() -> None:
    provider: HostProvider = Joined()
    with pytest.raises(ProviderError, match="paddock worker host"):
        provider.create(order())
    with pytest.raises(ProviderError, match="not made by Paddock"):
        provider.terminate(Item(id="1", kind="host", name="mine", state=HostState.RUNNING))


def test_clean_up_sees_that_nothing_is_owned_and_may_rely_on_it() -> None:
    inventory = Joined().list_owned("prod")
    assert (inventory.items, inventory.complete) == ((), True)
    assert Joined().get(order()) is None
