"""The schemas are the providers' own: checked at places that are known, and a changed package is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.infra import rig, schemas


def test_every_type_that_a_module_uses_has_a_schema(terraform: rig.Terraform) -> None:
    known = set()
    for schema in terraform.schemas.values():
        known |= set(schema["resources"]) | {f"data.{name}" for name in schema["data"]}
    assert known == schemas.used(terraform.ground)


@pytest.mark.parametrize(
    ("provider", "type_", "name", "flags"),
    [
        ("aws", "aws_launch_template", "tags_all", {"computed", "optional"}),
        ("aws", "aws_launch_template", "arn", {"computed"}),
        ("aws", "aws_launch_template", "image_id", {"optional"}),
        ("aws", "aws_iam_role", "assume_role_policy", {"required"}),
        ("azurerm", "azurerm_resource_group", "location", {"required"}),
        ("google", "google_service_account", "email", {"computed"}),
        ("google", "google_compute_network", "project", {"computed", "optional"}),
    ],
)
def test_an_attribute_is_required_optional_or_computed_as_its_provider_says(
    terraform: rig.Terraform, provider: str, type_: str, name: str, flags: set[str]
) -> None:
    said = terraform.schemas[provider]["resources"][type_]["attributes"][name]
    assert {flag for flag in ("required", "optional", "computed") if said.get(flag)} == flags


def test_blocks_lie_where_they_do_in_the_provider(terraform: rig.Terraform) -> None:
    template = terraform.schemas["aws"]["resources"]["aws_launch_template"]
    assert {"cpu_options.nested_virtualization", "block_device_mappings.ebs.volume_size"} <= set(
        schemas.names(template)
    )
    assert template["blocks"]["cpu_options"]["max"] == 1
    assert template["blocks"]["block_device_mappings"]["max"] == 0
    assert template["attributes"]["tags"]["type"] == ["map", "string"]
    assert "features" in terraform.schemas["azurerm"]["provider"]["blocks"]


def test_a_package_that_changed_is_refused(tmp_path: Path) -> None:
    changed = replace(schemas.BINDINGS[-1], sha512="0" * 128)
    try:
        with pytest.raises(ValueError, match="is pinned"):
            schemas.build(changed, frozenset({"google_compute_network"}), tmp_path)
    except schemas.NotToBeHad as why:
        pytest.skip(str(why))
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".json"]


def test_a_machine_without_npm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(schemas.NotToBeHad, match="npm is not installed"):
        schemas.build(schemas.BINDINGS[0], frozenset({"aws_vpc"}), tmp_path / "cache")
