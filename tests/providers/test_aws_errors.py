"""Every failure of AWS has a class, words that say what to do, and no credential; settings are checked before use."""

from dataclasses import replace
from typing import Any

import pytest
from botocore import exceptions as sdk

from providers.aws import Aws, AwsGround, AwsKeys, AwsRegion
from providers.aws.errors import classify
from providers.contract import Blame, ErrorClass, HostOrder, ProviderError
from tests.clouds.ec2 import Ec2
from tests.providers.conftest import Bench, refused

GOOD = AwsRegion("us-east-1", "ami-12345678", {"us-east-1a": "subnet-12345678"}, ("sg-12345678",))


def answered(code: str, message: str = "words", status: int = 400, **headers: str) -> ProviderError:
    """What an answer of EC2 is classified as."""
    meta = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    error = sdk.ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": meta}, "RunInstances")
    return classify(error, "run_instances in us-east-1")


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("RequestLimitExceeded", 503, ErrorClass.THROTTLED),
        ("Throttling", 400, ErrorClass.THROTTLED),
        ("EC2ThrottledException", 400, ErrorClass.THROTTLED),
        ("SomethingNew", 429, ErrorClass.THROTTLED),
        ("InternalError", 500, ErrorClass.TRANSIENT),
        ("Unavailable", 503, ErrorClass.TRANSIENT),
        ("SomethingNew", 502, ErrorClass.TRANSIENT),
        ("", 0, ErrorClass.TRANSIENT),
        ("InsufficientInstanceCapacity", 500, ErrorClass.CAPACITY),
        ("InsufficientFreeAddressesInSubnet", 400, ErrorClass.CAPACITY),
        ("InsufficientSomethingNew", 500, ErrorClass.CAPACITY),
        ("ReservationCapacityExceeded", 400, ErrorClass.CAPACITY),
        ("UnfulfillableCapacity", 500, ErrorClass.CAPACITY),
        ("Unsupported", 400, ErrorClass.CAPACITY),
        ("VcpuLimitExceeded", 400, ErrorClass.QUOTA),
        ("InstanceLimitExceeded", 400, ErrorClass.QUOTA),
        ("MaxSpotInstanceCountExceeded", 400, ErrorClass.QUOTA),
        ("SomethingNewLimitExceeded", 400, ErrorClass.QUOTA),
        ("UnauthorizedOperation", 403, ErrorClass.AUTH),
        ("AuthFailure", 401, ErrorClass.AUTH),
        ("AuthFailure.ServiceLinkedRoleCreationNotPermitted", 400, ErrorClass.AUTH),
        ("OptInRequired", 401, ErrorClass.AUTH),
        ("Blocked", 403, ErrorClass.AUTH),
        ("ExpiredToken", 400, ErrorClass.AUTH),
        ("RequestExpired", 400, ErrorClass.AUTH),
        ("SomethingNew", 403, ErrorClass.AUTH),
        ("InvalidParameterValue", 400, ErrorClass.INVALID),
        ("InvalidParameterCombination", 400, ErrorClass.INVALID),
        ("UnsupportedOperation", 400, ErrorClass.INVALID),
        ("InvalidAMIID.NotFound", 400, ErrorClass.INVALID),
        ("TagLimitExceeded", 400, ErrorClass.INVALID),
        ("SomethingNew", 400, ErrorClass.INVALID),
        ("IdempotentParameterMismatch", 400, ErrorClass.CONFLICT),
        ("IdempotentInstanceTerminated", 400, ErrorClass.CONFLICT),
    ],
)
def test_each_code_has_its_class(code: str, status: int, kind: ErrorClass) -> None:
    error = answered(code, status=status)
    assert (error.kind, error.code) == (kind, code)
    turn = {ErrorClass.CONFLICT: Blame.PADDOCK}
    turn |= dict.fromkeys((ErrorClass.QUOTA, ErrorClass.AUTH, ErrorClass.INVALID), Blame.CALLER)
    assert error.blame is turn.get(kind, Blame.PROVIDER)


@pytest.mark.parametrize(
    ("code", "message", "words"),
    [
        ("VcpuLimitExceeded", "your current vCPU limit of 0 allows", "quota for such machines is zero"),
        ("VcpuLimitExceeded", "your current vCPU limit of 32 allows", "ask AWS for a higher quota"),
        ("ExpiredToken", "The security token included in the request is expired", "credentials have expired: renew"),
        ("AuthFailure", "AWS was not able to validate", "check the keys"),
        ("UnauthorizedOperation", "is not authorized to perform: ec2:CreateTags on", "allow ec2:CreateTags"),
        ("UnauthorizedOperation", "You are not authorized", "lacks a permission"),
        ("OptInRequired", "You are not subscribed", "enable this region"),
        ("InvalidAMIID.NotFound", "The image id '[ami-1]' does not exist", "set another image"),
        ("InvalidParameterValue", "Invalid value 'm9.large' for InstanceType.", "no such size"),
        ("InvalidParameterValue", "User data is limited to 16384 bytes", "at most 16384 bytes"),
        ("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved", "refuses a tag"),
        ("InvalidSubnetID.NotFound", "The subnet ID does not exist", "correct the zone's subnet"),
        ("OperationNotPermitted", "Modify its 'disableApiTermination'", "termination protection"),
    ],
)
def test_an_error_says_what_to_do(code: str, message: str, words: str) -> None:
    said = str(answered(code, message))
    assert words in said
    assert said.startswith(f"run_instances in us-east-1: {code}: ")


def test_words_hold_no_credential_and_are_bounded() -> None:
    for code, message in (
        ("SignatureDoesNotMatch", "The Canonical String was 'x-amz-security-token:FwoGZXIvYXdzEJr'"),
        ("UnauthorizedOperation", "No. Encoded authorization failure message: FwoGZXIvYXdzEJr"),
        ("InvalidClientTokenId", "AKIAFwoGZXIvYXdzEJr1 is unknown".upper().replace("IS UNKNOWN", "is unknown")),
        ("SomethingNew", "x" * 5000),
    ):
        said = str(answered(code, message, 403))
        assert "FwoGZXIvYXdzEJr".lower() not in said.lower()
        assert len(said) <= 420
        assert code in said
    hidden = classify(
        sdk.ClientError({"Error": {"Code": "X", "Message": "key hunter2-hunter2"}}, "x"), "x", ["hunter2"]
    )
    assert "hunter2" not in str(hidden)


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("0.5", 0.5), ("99999", 3600.0), ("-1", None), ("nan", None), ("soon", None)]
)
def test_a_time_to_wait_is_taken_from_the_answer(header: str, seconds: float | None) -> None:
    assert answered("RequestLimitExceeded", status=503, **{"Retry-After": header}).retry_after_s == seconds
    assert answered("RequestLimitExceeded", status=503).retry_after_s is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (sdk.NoCredentialsError(), ErrorClass.AUTH),
        (sdk.PartialCredentialsError(provider="env", cred_var="aws_secret_access_key"), ErrorClass.AUTH),
        (sdk.ProfileNotFound(profile="x"), ErrorClass.AUTH),
        (sdk.UnauthorizedSSOTokenError(), ErrorClass.AUTH),
        (sdk.EndpointConnectionError(endpoint_url="https://x"), ErrorClass.TRANSIENT),
        (sdk.ConnectTimeoutError(endpoint_url="https://x"), ErrorClass.TRANSIENT),
        (sdk.ReadTimeoutError(endpoint_url="https://x"), ErrorClass.TRANSIENT),
        (sdk.ConnectionClosedError(endpoint_url="https://x"), ErrorClass.TRANSIENT),
        (sdk.ParamValidationError(report="no such parameter"), ErrorClass.INVALID),
        (sdk.InvalidRegionError(region_name="a b"), ErrorClass.INVALID),
        (RuntimeError("anything"), ErrorClass.TRANSIENT),
    ],
)
def test_an_error_without_an_answer_has_a_class_too(error: Exception, kind: ErrorClass) -> None:
    assert classify(error).kind is kind


# Credentials


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """An environment in which the SDK finds no credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def cloud() -> Any:
    cloud = Ec2()
    yield cloud
    cloud.close()


def order(cloud: Ec2) -> HostOrder:
    return Bench(cloud).order()


@pytest.mark.usefixtures("bare")
def test_missing_credentials_are_told_before_any_request(cloud: Ec2) -> None:
    provider = Aws(replace(cloud.ground, keys=None))
    wanted = order(cloud)
    error = refused(lambda: provider.create(wanted))
    assert error.kind is ErrorClass.AUTH
    assert "no usable AWS credentials" in str(error)
    inventory = provider.list_owned("c")
    assert not inventory.complete
    assert len(inventory.missing_scopes) == 8
    assert cloud.calls() == {}


def test_wrong_keys_are_told(cloud: Ec2) -> None:
    provider = Aws(replace(cloud.ground, keys=AwsKeys("AKIASOMEBODYELSE0001", "other-secret-key")))
    error = refused(lambda: provider.create(order(cloud)))
    assert (error.kind, error.code) == (ErrorClass.AUTH, "AuthFailure")
    assert "check the keys" in str(error)


def test_the_users_own_configuration_changes_nothing(
    cloud: Ec2, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    config = tmp_path / "config"
    config.write_text("[profile broken]\nregion = nowhere\nendpoint_url = http://127.0.0.1:9\n")
    for name, value in {
        "AWS_CONFIG_FILE": str(config),
        "AWS_PROFILE": "missing",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_MAX_ATTEMPTS": "9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    assert Aws(cloud.ground).create(order(cloud)).kind == "host"


# Settings


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "useast1"}, "no region's name"),
        ({"name": "us east 1"}, "no region's name"),
        ({"subnets": {"eu-west-1a": "subnet-12345678"}}, "not in region"),
        ({"subnets": {"us-east-1a": "sg-12345678"}}, "the subnet of zone us-east-1a"),
        ({"image": "debian-13"}, "an id like ami-"),
        ({"image": ""}, "the image of region"),
        ({"security_groups": ("default",)}, "an id like sg-"),
    ],
)
def test_a_region_that_cannot_be_right_is_refused(changes: dict[str, Any], words: str) -> None:
    error = refused(lambda: replace(GOOD, **changes))
    assert error.kind is ErrorClass.INVALID
    assert words in str(error)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"regions": ()}, "no region is set"),
        ({"regions": (GOOD, GOOD)}, "set twice"),
        ({"volume_gib": 1}, "8 to 16384"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(changes: dict[str, Any], words: str) -> None:
    error = refused(lambda: AwsGround(**({"regions": (GOOD,)} | changes)))
    assert error.kind is ErrorClass.INVALID
    assert words in str(error)


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(TypeError):
        GOOD.subnets["us-east-1b"] = "subnet-1"  # type: ignore[index]
