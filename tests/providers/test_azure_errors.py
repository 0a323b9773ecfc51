"""Azure's errors become ours, each once and with what to do; and what its ground and its sizes say of themselves."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.identity import CredentialUnavailableError

from providers.azure import Azure, sizes
from providers.azure.errors import kind_of
from providers.contract import Blame, ErrorClass, HostOrder, ProviderError
from tests.clouds.arm import Arm

PUT = "virtualMachines.PUT"
ORDER = HostOrder(
    controller="prod",
    environment="azure-eu",
    host="h1",
    attempt=1,
    size="Standard_D4s_v5",
    zone="2",
    deadline=datetime(2027, 1, 1, tzinfo=UTC),
)


@pytest.fixture
def arm() -> Iterator[Arm]:
    arm = Arm()
    yield arm
    arm.close()


def failing(arm: Arm) -> ProviderError:
    with pytest.raises(ProviderError) as failed:
        arm.provider.create(ORDER)
    return failed.value


@pytest.mark.parametrize(
    ("status", "code", "message", "kind", "blame", "words"),
    [
        (429, "TooManyRequests", "", ErrorClass.THROTTLED, Blame.PROVIDER, ""),
        (429, "RetryableErrorDueToAnotherOperation", "", ErrorClass.THROTTLED, Blame.PROVIDER, ""),
        (500, "InternalServerError", "", ErrorClass.TRANSIENT, Blame.PROVIDER, ""),
        (503, "Odd", "", ErrorClass.TRANSIENT, Blame.PROVIDER, ""),
        (409, "OperationPreempted", "", ErrorClass.TRANSIENT, Blame.PROVIDER, ""),
        (409, "ZonalAllocationFailed", "", ErrorClass.CAPACITY, Blame.PROVIDER, ""),
        (409, "SkuNotAvailable", "", ErrorClass.CAPACITY, Blame.PROVIDER, "not to be had"),
        (409, "OperationNotAllowed", "approved Cores Quota, Current Limit: 10", ErrorClass.QUOTA, Blame.CALLER, "more"),
        (409, "OperationNotAllowed", "Cores quota. Current Limit: 0, Usage: 0", ErrorClass.QUOTA, Blame.CALLER, "is 0"),
        (409, "OperationNotAllowed", "The VM is being deleted", ErrorClass.TRANSIENT, Blame.PROVIDER, ""),
        (409, "OperationNotAllowed", "not in this state", ErrorClass.INVALID, Blame.CALLER, ""),
        (400, "PublicIPCountLimitReached", "", ErrorClass.QUOTA, Blame.CALLER, ""),
        (403, "AuthorizationFailed", "", ErrorClass.AUTH, Blame.CALLER, "role"),
        (403, "RequestDisallowedByPolicy", "", ErrorClass.INVALID, Blame.CALLER, "tags"),
        (409, "ReadOnlyDisabledSubscription", "", ErrorClass.AUTH, Blame.CALLER, "enable"),
        (400, "InvalidTagNameCharacters", "", ErrorClass.INVALID, Blame.CALLER, "tag"),
        (404, "GalleryImageNotFound", "", ErrorClass.INVALID, Blame.CALLER, "image is missing"),
        (404, "ResourceGroupNotFound", "", ErrorClass.INVALID, Blame.CALLER, "Terraform"),
        (400, "AvailabilityZoneNotSupported", "", ErrorClass.INVALID, Blame.CALLER, "zones"),
        (404, "SubscriptionNotFound", "", ErrorClass.INVALID, Blame.CALLER, "another tenant"),
        (418, "Odd", "", ErrorClass.INVALID, Blame.CALLER, ""),
    ],
)
def test_each_error_has_its_class_and_says_whose_turn_it_is(
    arm: Arm, status: int, code: str, message: str, kind: ErrorClass, blame: Blame, words: str
) -> None:
    arm.refuse(PUT, status, code, message)
    said = failing(arm)
    assert (said.kind, said.blame, said.code) == (kind, blame, code)
    assert ORDER.name in str(said)
    assert words in str(said)
    assert arm.calls()[PUT] == 1  # the SDK tried nothing again
    assert arm.held() == ()


def test_a_code_within_a_code_is_the_one_that_counts(arm: Arm) -> None:
    inner = {"code": "AllocationFailed", "message": "no room"}
    arm.answer(PUT, 409, {"error": {"code": "Conflict", "message": "it failed", "details": [inner]}})
    said = failing(arm)
    assert (said.kind, said.code) == (ErrorClass.CAPACITY, "AllocationFailed")
    assert "no room" in str(said)


def test_a_disk_that_is_in_use_may_be_free_later(arm: Arm) -> None:
    arm.plant("disk", ORDER.tags, "data")
    arm.attach("disk", "data", "vm1")
    (disk,) = arm.provider.list_owned("prod").items
    with pytest.raises(ProviderError, match="attached to VM") as busy:
        arm.provider.terminate(disk)
    assert busy.value.kind is ErrorClass.TRANSIENT


@pytest.mark.parametrize("seconds", [7, 0])
def test_azures_advice_when_to_come_again_is_kept(arm: Arm, seconds: int) -> None:
    arm.refuse(PUT, 429, "TooManyRequests", "", Retry_After=str(seconds))
    assert failing(arm).retry_after_s == seconds


def test_the_advice_may_be_a_date(arm: Arm) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    arm.refuse(PUT, 503, "ServiceUnavailable", "", Retry_After=at)
    assert 55 < (failing(arm).retry_after_s or 0) <= 60


def test_advice_that_cannot_be_read_is_none(arm: Arm) -> None:
    arm.refuse(PUT, 503, "ServiceUnavailable", "", Retry_After="soon")
    assert failing(arm).retry_after_s is None


def test_an_expired_token_says_so(arm: Arm) -> None:
    arm.expire_token()
    said = failing(arm)
    assert (said.kind, said.blame) == (ErrorClass.AUTH, Blame.CALLER)
    assert "renew" in str(said)


class NoCredential:
    """A machine without any identity."""

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        del scopes, options
        raise CredentialUnavailableError(message="no identity is configured")


def test_no_credential_at_all_is_a_matter_for_a_person(arm: Arm) -> None:
    provider = Azure(arm.ground_with(credential=NoCredential()))
    with pytest.raises(ProviderError, match=r"no identity.*renew") as failed:
        provider.get(ORDER)
    assert failed.value.kind is ErrorClass.AUTH
    provider.close()


def test_an_endpoint_where_nobody_listens_may_come_back(arm: Arm) -> None:
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{port.getsockname()[1]}"
        provider = Azure(arm.ground_with(endpoint=nobody))
        with pytest.raises(ProviderError) as failed:
            provider.get(ORDER)
        assert failed.value.kind is ErrorClass.TRANSIENT
        provider.close()


def test_an_operation_that_failed_later_is_classed_by_its_code_alone() -> None:
    assert kind_of("AllocationFailed", "", 200) is ErrorClass.CAPACITY
    assert kind_of("GalleryImageNotFound", "") is ErrorClass.INVALID
    assert kind_of("NeverHeardOf", "", 200) is ErrorClass.TRANSIENT


# The ground


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("subscription", "mine"),
        ("resource_group", ""),
        ("region", "West Europe"),
        ("subnet", "hosts"),
        ("image", "debian"),
        ("identity", "host"),
        ("ssh_public_key", "-----BEGIN"),
        ("disk_gib", 0),
        ("disk_type", "fast"),
        ("admin", "root"),
        ("endpoint", "http://management.example"),
    ],
)
def test_a_ground_names_the_field_that_is_wrong(arm: Arm, field: str, value: object) -> None:
    with pytest.raises(ProviderError, match=field) as refused:
        arm.ground_with(**{field: value})
    assert (refused.value.kind, refused.value.code) == (ErrorClass.INVALID, field)


def test_a_credential_is_not_shown(arm: Arm) -> None:
    assert "Token" not in repr(arm.ground)


# Sizes


def test_the_catalogue_has_only_what_may_give_kvm_and_dated_prices(arm: Arm) -> None:
    offered = arm.provider.catalogue()
    assert {one.kvm for one in offered} == {"nested", "proof"}
    assert all(one.price_per_hour and one.currency == "USD" and one.as_of == sizes.PRICED_AT for one in offered)
    assert all(one.zones == arm.zones for one in offered)
    assert len({one.name for one in offered}) == len(offered)
    named = {one.name: one for one in offered}
    assert (named["Standard_D4s_v5"].vcpu, named["Standard_D4s_v5"].memory_mib) == (4, 16384)
    assert (named["Standard_D4s_v5"].price_per_hour, named["Standard_D4s_v5"].kvm) == (0.23, "nested")
    assert (named["Standard_E8as_v6"].memory_mib, named["Standard_E8as_v6"].kvm) == (65536, "proof")


def test_every_size_on_offer_is_found_again() -> None:
    offered = sizes.catalogue("westeurope", ())
    assert [sizes.find(one.name, "westeurope", ()) for one in offered] == list(offered)


def test_a_region_without_prices_still_has_sizes() -> None:
    assert {one.price_per_hour for one in sizes.catalogue("norwayeast", ())} == {None}


def test_a_series_that_a_region_does_not_sell_is_not_offered_there() -> None:
    with pytest.raises(ProviderError, match="not sold in region francecentral"):
        sizes.find("Standard_D4s_v7", "francecentral", ())
