"""Machines and their metadata services: what each cloud is asked, and every way in which the answer can be none."""

import json
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.bootstrap.aws import Aws
from paddock.bootstrap.errors import NotYet, Refused
from paddock.bootstrap.identity import Azure, Gcp, Identity, as_jwt, text_in
from paddock.bootstrap.instances import aws_instance, azure_instance, gcp_instance
from paddock.contracts.errors import PaddockError
from tests.bootstrap.rig import AUDIENCE, Cloud
from tests.clouds.metadata import AWS_CLAIMS, AwsMachine, GcpMachine, Issuer, Server, Sts, Told, claims_of, raw

At = Callable[[str], Identity]
IDENTITIES: dict[str, At] = {
    "aws": lambda url: Aws(url, url, 0.5),
    "azure": lambda url: Azure(metadata=url, timeout_s=0.5),
    "gcp": lambda url: Gcp(url, 0.5),
}
each_cloud = pytest.mark.parametrize("cloud", IDENTITIES)


@each_cloud
def test_the_token_names_the_machine_and_the_audience(cloud: str) -> None:
    world = Cloud(cloud)
    try:
        machine = world.machine()
        claims = claims_of(machine.identity.prove(AUDIENCE).value)
        named = {
            "aws": lambda: claims[AWS_CLAIMS]["ec2_source_instance_arn"],
            "azure": lambda: claims["xms_az_rid"],
            "gcp": lambda: claims["google"]["compute_engine"]["instance_name"],
        }[cloud]()
        assert (named, claims["aud"]) == (machine.instance, AUDIENCE)
    finally:
        world.close()


@each_cloud
def test_a_silent_metadata_service_is_left_in_time(cloud: str) -> None:
    for answer in (b"", b"HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\nContent-Length: 99\r\n\r\nx"):
        with raw(answer, then_silent=True) as url:
            began = time.monotonic()
            with pytest.raises(NotYet, match=r"the metadata service did not answer within 0\.5 s"):
                IDENTITIES[cloud](url).prove(AUDIENCE)
            assert time.monotonic() - began < 3


@each_cloud
def test_an_answer_that_comes_drop_by_drop_is_left_in_time(cloud: str) -> None:
    for answer in (
        b"HTTP/1.1 200 OK\r\nX-A: " + b"x" * 200,
        b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n" + b"x" * 199,
    ):
        with raw(answer, drip_s=0.05) as url:
            began = time.monotonic()
            with pytest.raises(NotYet, match=r"did not answer within 0\.5 s"):
                IDENTITIES[cloud](url).prove(AUDIENCE)
            assert time.monotonic() - began < 3


@each_cloud
def test_nobody_there_is_told(cloud: str) -> None:
    with raw(b"") as url:
        pass
    with pytest.raises(NotYet, match="the metadata service cannot be reached"):
        IDENTITIES[cloud](url).prove(AUDIENCE)


@each_cloud
def test_a_huge_answer_is_not_read(cloud: str) -> None:
    huge = b"HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\n\r\n" + b"a.b" * 100_000
    with raw(huge) as url, pytest.raises(NotYet, match="more than 64 KiB"):
        IDENTITIES[cloud](url).prove(AUDIENCE)


@each_cloud
@settings(max_examples=25, deadline=None)
@given(garbage=st.binary(max_size=300))
def test_garbage_is_no_identity(cloud: str, garbage: bytes) -> None:
    """Bytes of any kind, as an answer and in place of one: an error in our words, and never anything else."""
    head = f"HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\nContent-Length: {len(garbage)}\r\n\r\n".encode()
    for answer in (garbage, head + garbage):
        with raw(answer) as url, pytest.raises((NotYet, Refused)):
            IDENTITIES[cloud](url).prove(AUDIENCE)


@pytest.mark.parametrize(
    ("cloud", "status", "wrong"),
    [
        ("gcp", 404, Refused),
        ("gcp", 403, Refused),
        ("gcp", 429, NotYet),
        ("gcp", 503, NotYet),
        ("azure", 400, Refused),
        ("azure", 404, NotYet),
        ("azure", 410, NotYet),
        ("azure", 500, NotYet),
        ("aws", 401, NotYet),
        ("aws", 404, NotYet),
        ("aws", 503, NotYet),
    ],
)
def test_a_status_is_for_now_or_for_good(cloud: str, status: int, wrong: type[Exception]) -> None:
    answer = f"HTTP/1.1 {status} No\r\nMetadata-Flavor: Google\r\nContent-Length: 0\r\n\r\n".encode()
    with raw(answer) as url, pytest.raises(wrong, match=str(status) if cloud != "gcp" or status != 404 else "account"):
        IDENTITIES[cloud](url).prove(AUDIENCE)


def test_what_is_not_googles_is_not_believed() -> None:
    with raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na.b.c") as url, pytest.raises(NotYet, match="not Google's"):
        Gcp(url, 2).prove(AUDIENCE)


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Server(GcpMachine(Issuer("https://issuer.example.com/"), "ph-1"))
    try:
        with raw(b"") as proxy:
            for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy)
            assert Gcp(machine.url, 2).prove(AUDIENCE).value.count(".") == 2
    finally:
        machine.close()


def test_azure_picks_the_identity_that_was_named() -> None:
    world = Cloud("azure")
    try:
        server = world.machine().server
        with pytest.raises(Refused, match=r"\(400\)") as caught:
            Azure("00000000-0000-0000-0000-000000000000", server.url, 2).prove(AUDIENCE)
        assert "managed identity" in caught.value.info.remedy
        assert Azure("99999999-bbbb-cccc-dddd-eeeeeeeeeeee", server.url, 2).prove(AUDIENCE).value
    finally:
        world.close()


# AWS: two services, and a signature


Amazon = tuple[Sts, AwsMachine, Server, Server]


@pytest.fixture
def amazon() -> Iterator[Amazon]:
    sts = Sts(Issuer("https://issuer.example.com/"))
    machine = AwsMachine("i-0123456789abcdef0")
    sts.add(machine)
    metadata, endpoint = Server(machine), Server(sts)
    yield sts, machine, metadata, endpoint
    metadata.close()
    endpoint.close()


def test_sts_takes_our_signature_and_no_other(amazon: Amazon) -> None:
    sts, machine, metadata, endpoint = amazon
    identity = Aws(metadata.url, endpoint.url, 2)
    token = identity.prove("https://bao.example.com/?a=b&c=d e")
    assert claims_of(token.value)["aud"] == "https://bao.example.com/?a=b&c=d e"
    machine.key += "x"
    sts.machines[machine.key_id] = AwsMachine(machine.id, key_id=machine.key_id, key="other", session=machine.session)
    with pytest.raises(Refused, match="403 SignatureDoesNotMatch"):
        identity.prove(AUDIENCE)


def test_an_account_without_federation_is_told_what_to_do(amazon: Amazon) -> None:
    sts, _, metadata, endpoint = amazon
    sts.allowed = False
    with pytest.raises(Refused, match="OutboundWebIdentityFederationDisabled") as caught:
        Aws(metadata.url, endpoint.url, 2).prove(AUDIENCE)
    assert "enable outbound identity federation" in caught.value.info.remedy


def test_a_throttled_sts_is_asked_again(amazon: Amazon) -> None:
    _, _, metadata, endpoint = amazon
    for status, code in ((400, "Throttling"), (503, "ServiceUnavailable"), (200, "Nothing")):
        endpoint.before.append(Told(status, f"<Code>{code}</Code>".encode()))
        with pytest.raises(NotYet, match=f"{status} {code}"):
            Aws(metadata.url, endpoint.url, 2).prove(AUDIENCE)


def test_an_instance_without_a_profile_waits(amazon: Amazon) -> None:
    _, machine, metadata, endpoint = amazon
    machine.role = ""
    with pytest.raises(NotYet):
        Aws(metadata.url, endpoint.url, 2).prove(AUDIENCE)


def test_credentials_that_no_header_can_carry_are_refused(amazon: Amazon) -> None:
    _, machine, metadata, endpoint = amazon
    machine.session = "a\r\nX-Evil: 1"
    with pytest.raises(NotYet, match="AWS STS"):
        Aws(metadata.url, endpoint.url, 2).prove(AUDIENCE)


# Forms


@given(st.binary(max_size=400))
def test_what_passes_for_a_token_has_its_form(body: bytes) -> None:
    try:
        text = as_jwt(body).value
    except NotYet:
        return
    assert len(text.split(".")) == 3
    assert text.isascii()
    assert not any(character.isspace() for character in text)


@given(st.lists(st.text("abcXYZ019-_", min_size=1), min_size=3, max_size=3))
def test_a_token_of_the_right_form_is_taken_as_it_is(parts: list[str]) -> None:
    token = ".".join(parts)
    assert as_jwt(f"{token}\n".encode()).value == token


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_gives_a_text_or_a_clear_error(value: object) -> None:
    try:
        found = text_in(json.dumps(value).encode(), "access_token")
    except NotYet as wrong:
        assert "access_token" in wrong.info.message
        return
    assert isinstance(value, dict)
    assert value["access_token"] == found


def test_machines_are_named_as_their_tokens_name_them() -> None:
    arn = aws_instance("i-0123456789abcdef0", "us-east-1-bos-1a", "123456789012")
    assert arn == "arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0"
    sub = "11111111-2222-3333-4444-55555555555A"
    azure = azure_instance(f"/subscriptions/{sub}/resourceGroups/RG/providers/Microsoft.Compute/virtualMachines/ph-1")
    assert azure == f"/subscriptions/{sub.lower()}/resourcegroups/RG/providers/Microsoft.Compute/virtualMachines/ph-1"
    assert gcp_instance("ph-0123-1") == "ph-0123-1"


@pytest.mark.parametrize(
    "make",
    [
        lambda: aws_instance("i-1/../x", "eu-central-1a", "123456789012"),
        lambda: aws_instance("i-0123456789abcdef0", "nowhere", "123456789012"),
        lambda: aws_instance("i-0123456789abcdef0", "eu-central-1a", "12"),
        lambda: azure_instance("ph-1"),
        lambda: azure_instance("/subscriptions/x/resourceGroups/RG/providers/Microsoft.Compute/virtualMachines/a/b"),
        lambda: gcp_instance("Ph_1"),
        lambda: gcp_instance(""),
    ],
)
def test_what_no_cloud_calls_a_machine_is_refused(make: Callable[[], str]) -> None:
    with pytest.raises(PaddockError) as caught:
        make()
    assert caught.value.info.field == "instance"
