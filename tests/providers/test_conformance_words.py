"""What holds for the words of every provider: no credential in any of them, bounded, and a class for whatever comes."""

import string
import traceback
from collections.abc import Callable, Mapping

import pytest
from azure.core.exceptions import HttpResponseError, ODataV4Format
from botocore.exceptions import ClientError
from google.api_core.exceptions import from_http_status
from hypothesis import given
from hypothesis import strategies as st

from providers.aws import errors as aws
from providers.azure import errors as azure
from providers.contract import ErrorClass, ProviderError
from providers.gcp import errors as gcp
from tests.clouds.cloud import Cloud, Fault, Operation
from tests.clouds.ec2_account import KEYS
from tests.providers.conftest import Bench

LONGEST = 1000
# On-prem errors are made where the BMC is asked; tests/providers/onprem tries them through HTTP.
CLASSIFY: Mapping[str, Callable[[str, int, str], ProviderError]] = {
    "aws": lambda code, status, text: aws.classify(_of_aws(code, status, text)),
    "azure": lambda code, status, text: azure.classify(_of_azure(code, status, text), "create a machine"),
    "gcp": lambda code, status, text: gcp.classify(
        from_http_status(status, text, errors=[{"reason": code, "message": text}])
    ),
}
CODES = st.one_of(
    st.sampled_from(sorted(aws._KINDS) + sorted(azure._KIND_OF) + sorted(gcp.CODES)),
    st.text(string.ascii_letters + ". _-", max_size=60),
    st.text(max_size=300),
)
STATUSES = st.integers(400, 599)
TEXTS = st.one_of(st.text(max_size=80), st.text(min_size=1, max_size=40).map(lambda text: text * 200))


def _of_aws(code: str, status: int, text: str) -> ClientError:
    said = {"Error": {"Code": code, "Message": text}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(said, "RunInstances")


def _of_azure(code: str, status: int, text: str) -> HttpResponseError:
    error = HttpResponseError(message=text)
    error.status_code = status
    error.error = ODataV4Format({"code": code, "message": text}) if code or text else None
    return error


@pytest.mark.parametrize("name", CLASSIFY)
@given(code=CODES, status=STATUSES, text=TEXTS)
def test_whatever_a_cloud_answers_has_a_class_and_bounded_words(name: str, code: str, status: int, text: str) -> None:
    error = CLASSIFY[name](code, status, text)
    assert isinstance(error.kind, ErrorClass)
    assert 0 < len(str(error)) <= LONGEST
    assert len(error.code) <= 300
    assert error.retry_after_s is None or 0 <= error.retry_after_s <= 86_400


@given(
    response=st.one_of(
        st.none(),
        st.dictionaries(
            st.sampled_from(["Error", "ResponseMetadata", "x"]),
            st.one_of(
                st.none(),
                st.text(max_size=5),
                st.dictionaries(
                    st.sampled_from(["Code", "Message", "HTTPStatusCode", "HTTPHeaders"]),
                    st.one_of(st.none(), st.integers(), st.text(max_size=5), st.dictionaries(st.text(), st.text())),
                ),
            ),
        ),
    )
)
def test_an_answer_of_any_shape_has_a_class_at_aws(response: object) -> None:
    error = ClientError({}, "RunInstances")
    error.response = response
    assert isinstance(aws.classify(error).kind, ErrorClass)


@pytest.mark.parametrize("fault", [Fault.THROTTLED, Fault.TRANSIENT, Fault.AUTH, Fault.LOST])
def test_no_credential_is_in_the_words_of_an_error(bench: Bench, fault: Fault) -> None:
    order = bench.order()
    bench.cloud.fault(Operation.CREATE, fault)
    with pytest.raises(ProviderError) as caught:
        bench.provider.create(order)
    _silent(bench.cloud, "".join(traceback.format_exception(caught.value)), repr(caught.value), caught.value.code)


def test_no_credential_is_shown_with_settings_provider_or_list(bench: Bench) -> None:
    provider = bench.provider
    held = [repr(value) for value in vars(provider).values()]
    bench.provider.create(bench.order())
    bench.cloud.fault(Operation.LIST, Fault.AUTH)
    inventory = provider.list_owned(bench.controller)
    assert not inventory.complete
    _silent(bench.cloud, repr(provider), *held, repr(inventory))


def _silent(cloud: Cloud, *texts: str) -> None:
    if cloud.name == "gcp":
        pytest.skip("gcp: the emulated Google takes no credentials")
    for secret in _secrets(cloud):
        assert len(secret) > 8
        assert not [text for text in texts if secret in text]


def _secrets(cloud: Cloud) -> tuple[str, ...]:
    by_cloud: Mapping[str, Callable[[], tuple[str, ...]]] = {
        "aws": lambda: KEYS.secrets,
        "azure": lambda: (cloud.provider.ground.credential.token,),  # type: ignore[attr-defined]
        "onprem": lambda: (cloud.password,),  # type: ignore[attr-defined]
    }
    return by_cloud[cloud.name]()
