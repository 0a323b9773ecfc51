"""Google's many errors in the contract's classes, each with words that say what to do."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.api_core.exceptions import from_http_status
from google.auth.exceptions import RefreshError, TransportError
from google.cloud import compute_v1
from requests.exceptions import ConnectTimeout

from providers.contract import Blame, ErrorClass, HostState, Item
from providers.gcp import Gcp
from providers.gcp.errors import classify, of_operation
from tests.clouds.cloud import Fault, Operation
from tests.clouds.gce import Gce
from tests.clouds.gce_rules import Project
from tests.clouds.gce_use import ZONE, order, refused


@pytest.fixture
def cloud() -> Iterator[Gce]:
    found = Gce()
    yield found
    found.close()
    assert not found.refused, "a request broke Google's schema"


# Errors


@pytest.mark.parametrize("fault", [Fault.THROTTLED, Fault.TRANSIENT, Fault.CAPACITY, Fault.QUOTA, Fault.AUTH])
@pytest.mark.parametrize("where", [Operation.CREATE, Operation.GET, Operation.TERMINATE])
def test_each_fault_has_its_class_and_is_not_tried_again_by_the_sdk(cloud: Gce, where: Operation, fault: Fault) -> None:
    item = Item(id="ph-1", kind="host", name="ph-1", state=HostState.RUNNING, zone=ZONE)
    calls: dict[Operation, Callable[[], object]] = {
        Operation.CREATE: lambda: cloud.provider.create(order()),
        Operation.GET: lambda: cloud.provider.get(order()),
        Operation.TERMINATE: lambda: cloud.provider.terminate(item),
    }
    cloud.fault(where, fault)
    assert refused(calls[where]).kind == ErrorClass(fault)
    assert sum(cloud.calls().values()) == 1


def test_both_forms_of_throttling_and_of_refused_credentials_are_known(cloud: Gce) -> None:
    cloud.fault(Operation.GET, Fault.THROTTLED, 2)
    cloud.fault(Operation.GET, Fault.AUTH, 2)
    errors = [refused(lambda: cloud.provider.get(order())) for _ in range(4)]
    assert [error.kind for error in errors] == [ErrorClass.THROTTLED] * 2 + [ErrorClass.AUTH] * 2
    assert [error.retry_after_s for error in errors[:2]] == [None, 7.0]
    assert "renew" in str(errors[3])


def test_a_policy_against_nesting_is_told_and_does_not_stop_metal(cloud: Gce) -> None:
    cloud.world.project = Project(constraints=("constraints/compute.disableNestedVirtualization",))
    error = refused(lambda: cloud.provider.create(order()))
    assert (error.kind, error.blame, error.code) == (ErrorClass.AUTH, Blame.CALLER, "conditionNotMet")
    assert "forbids KVM in machines" in str(error)
    cloud.provider.create(order(attempt=2, size="c3-standard-192-metal"))


@pytest.mark.parametrize(
    ("changes", "settings", "words"),
    [
        ({"image": "no-such-image"}, {}, "the image is missing"),
        ({"size": "n2-standard-5"}, {}, "the size does not exist"),
        ({}, {"project": "no-such-project"}, "the project does not exist"),
        ({}, {"subnetworks": {"europe-west4": "regions/other/subnetworks/x", "us-central1": "x"}}, "the subnetwork"),
    ],
)
def test_what_a_person_must_mend_is_said_in_words(
    cloud: Gce, changes: dict[str, Any], settings: dict[str, Any], words: str
) -> None:
    error = refused(lambda: Gcp(cloud.ground(**settings)).create(order(**changes)))
    assert (error.kind, error.blame) == (ErrorClass.INVALID, Blame.CALLER)
    assert words in str(error)


@pytest.mark.parametrize(
    ("status", "reason", "text", "kind", "words"),
    [
        (403, "quotaExceeded", "Quota 'N2_CPUS' exceeded.  Limit: 0.0 in region x.", ErrorClass.QUOTA, "quota is zero"),
        (403, "quotaExceeded", "Quota 'N2_CPUS' exceeded.  Limit: 8.0 in region x.", ErrorClass.QUOTA, "more of this"),
        (403, "accessNotConfigured", "Compute Engine API has not been used in project 1", ErrorClass.AUTH, "enable"),
        (
            403,
            "forbidden",
            "Required 'compute.instances.setLabels' permission",
            ErrorClass.AUTH,
            "grant this permission",
        ),
        (412, "conditionNotMet", "Constraint constraints/compute.x violated", ErrorClass.AUTH, "organisation policy"),
        (400, "invalid", "Invalid value for field 'resource.labels'", ErrorClass.INVALID, "refused the tags"),
        (400, "invalid", "Invalid value for field 'zone': 'x'. Unknown zone.", ErrorClass.INVALID, "zone does not"),
        (400, "resourceNotReady", "The resource is not ready", ErrorClass.TRANSIENT, "not ready"),
        (409, "alreadyExists", "The resource already exists", ErrorClass.CONFLICT, "already exists"),
        (408, "", "", ErrorClass.TRANSIENT, ""),
        (418, "", "", ErrorClass.INVALID, ""),
        (503, "ZONE_RESOURCE_POOL_EXHAUSTED", "no room", ErrorClass.CAPACITY, "no room"),
        (504, "", "gateway", ErrorClass.TRANSIENT, "gateway"),
    ],
)
def test_answers_are_classed_by_googles_word_before_the_status(
    status: int, reason: str, text: str, kind: ErrorClass, words: str
) -> None:
    errors = [{"reason": reason, "message": text}] if reason else []
    error = classify(from_http_status(status, text, errors=errors))  # type: ignore[no-untyped-call]
    assert error.kind is kind
    assert words in str(error)


@pytest.mark.parametrize(
    ("error", "kind", "blame"),
    [
        (RefreshError, ErrorClass.AUTH, Blame.CALLER),
        (TransportError, ErrorClass.TRANSIENT, Blame.PROVIDER),
        (ConnectTimeout, ErrorClass.TRANSIENT, Blame.PROVIDER),
    ],
)
def test_credentials_and_network_are_told_apart(error: type[Exception], kind: ErrorClass, blame: Blame) -> None:
    told = classify(error("it expired"))
    assert (told.kind, told.blame) == (kind, blame)


def test_an_operations_quota_of_zero_is_said_in_words() -> None:
    quota = compute_v1.QuotaExceededInfo(metric_name="compute.googleapis.com/n2_cpus", limit=0.0)
    first = compute_v1.Errors(
        code="QUOTA_EXCEEDED", message="Quota exceeded", error_details=[compute_v1.ErrorDetails(quota_info=quota)]
    )
    error = of_operation(compute_v1.Operation(error=compute_v1.Error(errors=[first]), http_error_status_code=403))
    assert error is not None
    assert error.kind is ErrorClass.QUOTA
    assert "this quota is zero" in str(error)


def test_missing_credentials_are_an_error_of_the_first_call(
    cloud: Gce, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    provider = Gcp(cloud.ground(endpoint="https://127.0.0.1:1"))
    error = refused(lambda: provider.get(order()))
    assert (error.kind, error.blame) == (ErrorClass.AUTH, Blame.CALLER)
    assert not provider.list_owned("prod").complete


def test_a_broken_key_is_an_error_that_does_not_quote_it(cloud: Gce) -> None:
    key = {"type": "service_account", "private_key": "s3cret", "client_email": "a@b", "token_uri": "http://127.0.0.1:1"}
    error = refused(lambda: Gcp(cloud.ground(endpoint="https://127.0.0.1:1", credentials=key)).get(order()))
    assert (error.kind, error.blame) == (ErrorClass.AUTH, Blame.CALLER)
    assert "s3cret" not in str(error)


def test_a_servers_silence_is_tried_again(cloud: Gce) -> None:
    provider = Gcp(cloud.ground(endpoint="http://127.0.0.1:1"))
    assert refused(lambda: provider.get(order())).kind is ErrorClass.TRANSIENT
