"""The doctor looks, changes nothing, and names the command that improves what it saw."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from paddock.cli.machine import register
from paddock.embedded import assets, ground, packages
from paddock.embedded.doctor import Choice, examine
from paddock.embedded.finding import Health
from paddock.embedded.ground import cgroup_kind

V1 = "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
V2 = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"


def app() -> typer.Typer:
    program = typer.Typer()
    register(program)
    return program


@pytest.fixture
def whole() -> None:
    """The machine after `make setup`, as every run of the suite has it."""
    assets.load(assets.cache_dir())


@pytest.mark.parametrize(("mounts", "kind"), [(V2, "v2"), (V1 + V2, "hybrid"), (V1, "v1"), ("", "none")])
def test_each_kind_of_cgroups_has_its_name(mounts: str, kind: str) -> None:
    assert cgroup_kind(mounts) == kind


@pytest.mark.usefixtures("whole")
def test_a_machine_that_was_set_up_is_able() -> None:
    diagnosis = examine()
    assert diagnosis.able, [one for one in diagnosis.findings if one.health is Health.MISSING]
    assert {"python", "user", "cgroups", "QEMU", "KVM", "guest", "Temporal", "ports", "disk"} <= {
        one.name for one in diagnosis.findings
    }


def test_an_empty_cache_is_missing_and_make_setup_is_named(tmp_path: Path) -> None:
    diagnosis = examine(cache=tmp_path)
    assert not diagnosis.able
    lacking = {one.name: one.remedy for one in diagnosis.findings if one.health is Health.MISSING}
    assert lacking["guest"] == "make setup"
    assert not list(tmp_path.iterdir()), "the doctor changed something"


def test_a_missing_package_comes_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "present", lambda package: package.name != "mmdebstrap")
    one = next(one for one in examine().findings if one.name == "mmdebstrap")
    assert (one.health, one.remedy) == (Health.MISSING, "apt-get install --no-install-recommends mmdebstrap")


@pytest.mark.usefixtures("whole")
def test_kvm_is_fine_only_when_a_guest_proved_it() -> None:
    one = next(one for one in examine().findings if one.name == "KVM")
    assert one.health is not Health.FINE or one.seen.startswith("proven")


def test_a_vmm_of_ones_own_that_is_none_is_refused() -> None:
    findings = {one.name: one for one in examine(Choice(qemu=Path("/bin/true"))).findings}
    assert findings["QEMU"].health is Health.MISSING
    assert "/bin/true" in findings["QEMU"].seen


def test_a_kernel_of_ones_own_that_is_no_file_is_refused() -> None:
    findings = {one.name: one for one in examine(Choice(kernel=Path("/no/kernel"))).findings}
    assert findings["guest"].health is Health.MISSING


def test_too_little_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ground, "WANTED_DISK_BYTES", 1 << 60)
    one = next(one for one in examine().findings if one.name == "disk")
    assert one.health is Health.WEAK


@pytest.mark.usefixtures("whole")
def test_json_is_one_document_and_the_exit_code_says_whether_it_is_able(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = CliRunner().invoke(app(), ["doctor", "--json"])
    assert (whole.exit_code, json.loads(whole.stdout)["able"]) == (0, True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    empty = CliRunner().invoke(app(), ["doctor", "--json"])
    assert (empty.exit_code, json.loads(empty.stdout)["able"]) == (1, False)
