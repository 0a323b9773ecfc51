"""Providers by name: settings are checked in words, and credentials that are missing are named before any work."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from paddock.contracts.ground import Choice
from providers.contract import ErrorClass, ProviderError
from providers.registry import KINDS, check_choices, provider

AWS: dict[str, Any] = {
    "regions": [
        {
            "name": "eu-west-1",
            "image": "ami-12345678",
            "subnets": {"eu-west-1a": "subnet-12345678"},
            "security_groups": ["sg-12345678"],
        }
    ]
}
AZURE: dict[str, Any] = {
    "subscription": "5b1f0a52-6f0e-4c0d-9a55-0c5a2f1f7d11",
    "resource_group": "paddock",
    "region": "westeurope",
    "subnet": "/subscriptions/5b1f0a52-6f0e-4c0d-9a55-0c5a2f1f7d11/resourceGroups/net/providers/Microsoft.Network/"
    "virtualNetworks/v/subnets/hosts",
    "image": "/subscriptions/5b1f0a52-6f0e-4c0d-9a55-0c5a2f1f7d11/resourceGroups/img/providers/"
    "Microsoft.Compute/images/i",
}
GCP: dict[str, Any] = {
    "project": "paddock-test",
    "zones": ["europe-west4-a"],
    "subnetworks": {"europe-west4": "hosts"},
    "image": "paddock-host",
}


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credential of whoever runs this, and no metadata service."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "GCE_", "PADDOCK_EMULATED")) or name.lower().endswith(
            "_proxy"
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))  # no command line tool of a cloud either
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:9/")  # closed: asked at once, and never a real one
    monkeypatch.setenv("IDENTITY_HEADER", "none")


def refusal(kind: str, settings: Mapping[str, Any]) -> ProviderError:
    with pytest.raises(ProviderError) as raised:
        provider(kind, settings)
    return raised.value


def test_every_kind_is_known_by_its_name_and_another_is_refused() -> None:
    assert set(KINDS) == {"joined", "onprem", "aws", "azure", "gcp"}
    wrong = refusal("ibm", {})
    assert wrong.kind is ErrorClass.INVALID
    assert "aws" in str(wrong)


@pytest.mark.parametrize(
    ("kind", "settings", "named"),
    [
        ("aws", AWS, "AWS_ACCESS_KEY_ID"),
        ("azure", AZURE, "AZURE_CLIENT_ID"),
        ("gcp", GCP, "GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
def test_without_credentials_it_says_which_are_missing(kind: str, settings: Mapping[str, Any], named: str) -> None:
    wrong = refusal(kind, settings)
    assert (wrong.kind, wrong.code) == (ErrorClass.AUTH, "credentials")
    assert named in str(wrong)


def test_with_credentials_in_the_environment_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-that-is-said-nowhere")
    made = provider("aws", AWS)
    assert made.name == "aws"
    assert "said-nowhere" not in repr(made)


@pytest.mark.parametrize(
    ("kind", "settings", "secret"), [("aws", AWS, "keys"), ("azure", AZURE, "credential"), ("gcp", GCP, "credentials")]
)
def test_a_secret_has_no_place_in_the_settings(kind: str, settings: Mapping[str, Any], secret: str) -> None:
    wrong = refusal(kind, {**settings, secret: {"token": "hunter2"}})
    assert wrong.code == secret
    assert "hunter2" not in str(wrong)


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("aws", {}, "regions"),
        ("aws", {**AWS, "reigons": []}, "reigons"),
        ("azure", {**AZURE, "disk_gib": "large"}, "disk_gib"),
        ("gcp", {**GCP, "zones": 7}, "zones"),
        ("onprem", {}, "inventory"),
        ("joined", {"region": "here"}, "region"),
    ],
)
def test_a_wrong_setting_is_named(kind: str, settings: Mapping[str, Any], words: str) -> None:
    wrong = refusal(kind, settings)
    assert wrong.kind is ErrorClass.INVALID
    assert words in f"{wrong.code} {wrong}"


INVENTORY = """
credentials: {c: {username: {env: U}, password: {env: P}}}
machines:
  - {name: m1, bmc: "https://10.0.0.11", system: a, size: big, zone: rack1, vcpu: 8, memory_mib: 8192, credentials: c}
  - {name: m2, bmc: "https://10.0.0.12", system: b, size: small, zone: rack2, vcpu: 4, memory_mib: 4096, credentials: c}
"""


@pytest.fixture
def grounds(tmp_path: Path) -> dict[str, dict[str, Any]]:
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text(INVENTORY)
    onprem = {"inventory": str(inventory), "claims": str(tmp_path / "claims"), "boot": str(tmp_path / "boot")}
    return {"aws": AWS, "azure": AZURE, "gcp": GCP, "onprem": onprem, "joined": {}}


@pytest.mark.parametrize(
    ("kind", "size", "zone"),
    [
        ("aws", "m8i.large", "eu-west-1a"),
        ("azure", "Standard_D8s_v5", "2"),
        ("gcp", "n2-standard-8", "europe-west4-a"),
        ("onprem", "big", "rack1"),
        ("onprem", "small", ""),
        ("joined", "any", ""),
    ],
)
def test_a_choice_that_a_ground_may_have_is_taken_without_asking_a_cloud(
    kind: str, size: str, zone: str, grounds: dict[str, dict[str, Any]]
) -> None:
    check_choices(kind, grounds[kind], [Choice(size=size, zone=zone)])


@pytest.mark.parametrize(
    ("kind", "size", "zone", "words"),
    [
        ("aws", "m8i.large", "", "(m8i.large): zone '' is not set up here: eu-west-1a can be ordered"),
        ("aws", "m8i.large", "eu-west-1b", "zone 'eu-west-1b' is not set up here"),
        ("azure", "Standard_D8s_v5", "", "zone '' is not set up here: 1, 2, 3 can be ordered"),
        ("azure", "Standard_Q9", "1", "size 'Standard_Q9'"),
        ("gcp", "n2-standard-8", "", "zone '' is not set up here: europe-west4-a can be ordered"),
        ("gcp", "e2-standard-8", "europe-west4-a", "size 'e2-standard-8'"),
        ("onprem", "huge", "rack1", "size 'huge' is not set up here: big, small can be ordered"),
        ("onprem", "big", "rack2", "zone 'rack2' is not set up here: rack1 can be ordered"),
    ],
)
def test_a_choice_that_a_ground_can_never_have_is_named(
    kind: str, size: str, zone: str, words: str, grounds: dict[str, dict[str, Any]]
) -> None:
    with pytest.raises(ProviderError) as raised:
        check_choices(kind, grounds[kind], [Choice(size=size, zone=zone)])
    assert raised.value.kind is ErrorClass.INVALID
    assert words in str(raised.value)


def test_an_azure_ground_without_zones_takes_a_choice_without_one() -> None:
    bare = {**AZURE, "zones": []}
    check_choices("azure", bare, [Choice(size="Standard_D8s_v5")])
    with pytest.raises(ProviderError, match="zone '1' is not set up here: none can be ordered"):
        check_choices("azure", bare, [Choice(size="Standard_D8s_v5", zone="1")])
