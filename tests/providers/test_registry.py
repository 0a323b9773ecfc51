"""Providers by name: settings are checked in words, and credentials that are missing are named before any work."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from providers.contract import ErrorClass, ProviderError
from providers.registry import KINDS, provider

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
