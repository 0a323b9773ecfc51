"""Modules and examples against the providers' real schemas; a spoilt module is caught, for each way of spoiling it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from providers.aws import AwsGround, AwsRegion
from providers.azure import AzureGround
from providers.contract import PROTECT_TAG, TAG_KEY, TAG_VALUE
from providers.gcp import GcpGround
from providers.registry import KINDS
from tests.infra import rig

CopyOf = Callable[[str], Path]
GroundOf = Callable[[str], rig.Ground]
FOLDERS = (*(f"modules/{name}" for name in rig.MODULES), *(f"live/{name}" for name in rig.LIVE))


def spoil(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{old!r} is not once in {file.name}"
    file.write_text(text.replace(old, new))


# Format, validity, and the modules' own tests


def test_every_file_is_formatted(terraform: rig.Terraform) -> None:
    done = terraform.run(terraform.ground, "fmt", "-check", "-recursive", "-diff")
    assert (done.code, done.out) == (0, "")


def test_an_unformatted_file_is_seen(terraform: rig.Terraform, copy_of: CopyOf) -> None:
    folder = copy_of("modules/aws-host-ground")
    spoil(folder / "main.tf", "  cidr_block           = var.network_cidr", "  cidr_block = var.network_cidr")
    assert "main.tf" in terraform.run(folder, "fmt", "-check", "-recursive").out


@pytest.mark.parametrize("folder", FOLDERS)
def test_it_is_valid_by_its_providers_schema(terraform: rig.Terraform, folder: str) -> None:
    assert terraform.validate(terraform.ground / folder) == []


@pytest.mark.parametrize("module", rig.MODULES)
def test_its_own_tests_pass(terraform: rig.Terraform, module: str) -> None:
    done = terraform.test(terraform.ground / "modules" / module)
    assert rig.failures(done) == []
    [summary] = [one["test_summary"] for one in done.events() if one["type"] == "test_summary"]
    assert (summary["status"], summary["skipped"]) == ("pass", 0)
    assert summary["passed"] >= 8


@pytest.mark.parametrize(
    ("module", "old", "new", "words"),
    [
        ("aws-host-ground", "      nested_virtualization =", "      nested_virtualisation =", "nested_virtualization"),
        ("aws-host-ground", 'resource "aws_nat_gateway" "out"', 'resource "aws_nat_gatway" "out"', "aws_nat_gatway"),
        ("aws-host-ground", '  ip_protocol       = "tcp"\n', "", "ip_protocol"),
        ("aws-host-ground", "    http_tokens ", "    http_token ", "http_token"),
        ("azure-host-ground", "default_outbound_access_enabled", "default_outbound_access", "default_outbound_access"),
        ("azure-host-ground", "  address_space       = [var", "  address_spaces      = [var", "address_spaces"),
        ("gcp-host-ground", "enable_nested_virtualization =", "nested_virtualization =", "nested_virtualization"),
        ("gcp-host-ground", "    boot         = true", "    boot         = {}", "boot"),
        ("gcp-host-ground", "google_compute_router.out[0].name", "google_compute_router.out[0].title", "title"),
    ],
)
def test_a_planted_mistake_is_named(
    terraform: rig.Terraform, copy_of: CopyOf, module: str, old: str, new: str, words: str
) -> None:
    folder = copy_of(f"modules/{module}")
    spoil(folder / "main.tf", old, new)
    wrong = terraform.validate(folder)
    assert any(line.startswith("main.tf:") and words in line for line in wrong), wrong


@pytest.mark.parametrize(
    ("module", "file", "old", "new", "words"),
    [
        ("aws-host-ground", "main.tf", "hop_limit = 1", "hop_limit = 2", "metadata service"),
        ("aws-host-ground", "main.tf", '= "terminate"', '= "stop"', "shuts down"),
        (
            "aws-host-ground",
            "main.tf",
            'for_each = ["instance", "volume", ',
            'for_each = ["instance", ',
            "first moment",
        ),
        ("azure-host-ground", "main.tf", "= false", "= true", "no way out"),
        ("azure-host-ground", "identity.tf", 'effect = "deny"', 'effect = "audit"', "must be refused"),
        ("azure-host-ground", "identity.tf", "subnets/read", "subnets/write", "neither change"),
        ("gcp-host-ground", "identity.tf", 'startsWith(\\"ph-\\")', 'startsWith(\\"\\")', "a name that Paddock gives"),
        ("gcp-host-ground", "main.tf", "on_create = true", "on_create = false", "only way out"),
    ],
)
def test_a_weakened_module_fails_its_own_tests(
    terraform: rig.Terraform, copy_of: CopyOf, module: str, file: str, old: str, new: str, words: str
) -> None:
    folder = copy_of(f"modules/{module}")
    spoil(folder / file, old, new)
    wrong = rig.failures(terraform.test(folder, "-filter=tests/ground.tftest.hcl"))
    assert "ground: fail" in wrong
    assert any(words in line for line in wrong), wrong


def test_a_provider_older_than_its_features_is_refused(terraform: rig.Terraform, copy_of: CopyOf) -> None:
    folder = copy_of("modules/aws-host-ground")
    spoil(folder / "versions.tf", ">= 6.33.0", ">= 6.99.0")
    done = terraform.run(folder, "init", "-backend=false", "-input=false", "-no-color")
    assert done.code != 0
    assert "6.99.0" in done.out + done.err


# One interface for all clouds


def _interface(module: str, file: str) -> str:
    return (rig.SOURCE / "modules" / module / file).read_text()


def test_all_modules_take_the_same() -> None:
    assert len({_interface(module, "variables.tf") for module in rig.MODULES}) == 1


def test_all_modules_say_the_same(ground: GroundOf) -> None:
    made = [ground(module).outputs for module in rig.MODULES]
    assert [sorted(outputs) for outputs in made] == [
        ["host_identity", "launch_settings", "network_id", "subnet_ids", "worker_identity"]
    ] * len(made)
    assert len({tuple(sorted(outputs["launch_settings"])) for outputs in made}) == 1


def settings(ground: GroundOf, module: str) -> dict[str, Any]:
    """The settings of the provider in the launch settings, as JSON gives them, with tuples as Python wants them."""
    said = json.loads(json.dumps(ground(module).outputs["launch_settings"]))
    assert said["provider"] in KINDS
    return {name: tuple(value) if isinstance(value, list) else value for name, value in said["ground"].items()}


def test_the_worker_of_aws_takes_the_launch_settings(ground: GroundOf) -> None:
    said = settings(ground, "aws-host-ground")
    made = AwsGround(**{**said, "regions": tuple(AwsRegion(**region) for region in said["regions"])})
    assert set(made.regions[0].subnets) == {"eu-central-1a", "eu-central-1b"}
    assert (made.volume_gib, made.regions[0].image) == (100, "ami-0123456789abcdef0")
    assert made.regions[0].security_groups


def test_the_worker_of_azure_takes_the_launch_settings(ground: GroundOf) -> None:
    made = AzureGround(**settings(ground, "azure-host-ground"))
    assert (made.zones, made.disk_gib) == (("1", "3"), 100)


def test_the_worker_of_google_takes_the_launch_settings(ground: GroundOf) -> None:
    made = GcpGround(**settings(ground, "gcp-host-ground"))
    assert made.subnetwork("europe-west4-a").endswith("/regions/europe-west4/subnetworks/hosts")


# Tags


@pytest.mark.parametrize("module", rig.MODULES)
def test_the_ground_carries_tags_that_keep_the_sweep_away(ground: GroundOf, module: str) -> None:
    tagged = {
        address: values["tags"]
        for address, values in ground(module).resources.items()
        if values.get("tags") and not address.startswith(("google_", "data."))
    }
    for address, tags in tagged.items():
        ours = {key: value for key, value in tags.items() if key != "Name"}
        assert {"paddock-controller", "paddock-environment", PROTECT_TAG} <= set(ours), address
        assert "paddock-host" not in ours, address
        assert all(TAG_KEY.fullmatch(key) and TAG_VALUE.fullmatch(value) for key, value in ours.items()), address
    assert tagged or module == "gcp-host-ground"


def test_no_module_makes_a_host() -> None:
    makers = r"aws_instance|aws_spot\w*|aws_autoscaling_group|azurerm_\w*virtual_machine\w*|google_compute_instance"
    for file in rig.SOURCE.rglob("*.tf"):
        assert not re.search(rf'^resource "({makers})" ', file.read_text(), re.M), file
