"""A service account's key signs each request over TLS, and stays out of every word that the provider says."""

import base64
import json
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from providers.contract import Blame, ErrorClass, ProviderError
from providers.gcp import Gcp
from tests.clouds.gce import Gce
from tests.clouds.gce_use import order, refused
from tests.servers.certs import TestCa

EMAIL = "controller@paddock-test.iam.gserviceaccount.com"


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def pem(key: rsa.RSAPrivateKey) -> str:
    form, without = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, without).decode()


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gce]:
    authority = TestCa(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.path))
    found = Gce(tls=authority.server_context("localhost"))
    yield found
    found.close()
    assert not found.refused


@pytest.fixture
def provider(cloud: Gce, pem: str) -> Gcp:
    credentials = {
        "type": "service_account",
        "client_email": EMAIL,
        "private_key": pem,
        "private_key_id": "k1",
        "token_uri": "https://localhost:1/token",
    }
    return Gcp(cloud.ground(credentials=credentials))


def test_each_request_is_signed_with_the_key(cloud: Gce, provider: Gcp, key: rsa.RSAPrivateKey) -> None:
    provider.create(order())
    assert provider.get(order()) is not None
    assert provider.list_owned("prod").complete
    assert cloud.bearers
    for token in cloud.bearers:
        signed, _, signature = token.rpartition(".")
        key.public_key().verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        claims = json.loads(_decoded(signed.partition(".")[2]))
        assert claims["iss"] == EMAIL
        assert claims["exp"] - claims["iat"] <= 3600


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_revoked_credentials_are_told_and_never_quoted(cloud: Gce, provider: Gcp, pem: str) -> None:
    cloud.revoked = True
    error = refused(lambda: provider.create(order()))
    assert (error.kind, error.blame) == (ErrorClass.AUTH, Blame.CALLER)
    assert "renew" in str(error)
    inventory = provider.list_owned("prod")
    assert not inventory.complete
    assert not cloud.held()
    said = [*traceback.format_exception(error), repr(error), repr(inventory), repr(provider)]
    said += [repr(value) for value in vars(provider).values()]
    secrets = [*cloud.bearers, *pem.splitlines()[1:-1]]
    assert not [secret for secret in secrets if secret in "".join(said)]


def test_a_server_that_nobody_vouches_for_gets_no_token(
    cloud: Gce, provider: Gcp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(TestCa(tmp_path / "other").path))
    with pytest.raises(ProviderError, match="CERTIFICATE_VERIFY_FAILED"):
        provider.get(order())
    assert not cloud.bearers
