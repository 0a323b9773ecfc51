"""The host image's recipe: cloud-init's own schema, systemd's own judgement, and that nothing drifted apart."""

import base64
import gzip
import importlib.util
import json
import re
import shutil
import string
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from paddock.embedded.packages import PACKAGES
from providers.contract import MAX_USER_DATA
from tests.infra.conftest import installed
from tests.infra.rig import ROOT

IMAGE = ROOT / "infra" / "image"
UNITS = ("paddock-join.service", "paddock-host.service")
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not on this machine")


def baked() -> str:
    spec = importlib.util.spec_from_file_location("paddock_bake", IMAGE / "bake.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text: str = module.render()
    return text


def launched() -> str:
    """What a host is told, by the template that the worker fills in."""
    host = json.dumps({"host": "h1", "note": "a 'quoted': # word"})
    join = json.dumps({"cloud": "gcp", "enrol": {"host": "h1"}})
    return string.Template((IMAGE / "host.yaml").read_text()).substitute(join=join, host=host)


# cloud-init


@pytest.fixture(scope="module")
def cloud_init() -> list[str]:
    package, tools = installed("cloud-init"), installed("tools")
    modules = package / "usr" / "lib" / "python3" / "dist-packages"
    return ["env", f"PYTHONPATH={modules}", str(tools / "bin" / "python"), "-m", "cloudinit.cmd.main", "schema"]


def verdict(cloud_init: list[str], text: str, where: Path) -> tuple[int, str]:
    (where / "user-data").write_text(text)
    argv = [*cloud_init, "--config-file", str(where / "user-data")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=where)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("text", [baked(), launched()], ids=["bake", "host"])
def test_cloud_init_takes_it(cloud_init: list[str], tmp_path: Path, text: str) -> None:
    code, said = verdict(cloud_init, text, tmp_path)
    assert (code, "Valid cloud-config" in said, "deprecat" in said.lower()) == (0, True, False), said


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  mode: poweroff", "  mode: power-off"),
        ("    encoding: gz+b64", "    encoding: zip"),
        ("package_update: true", "package_update: perhaps"),
        ("    permissions: ", "    permission: "),
    ],
)
def test_cloud_init_sees_a_planted_mistake(cloud_init: list[str], tmp_path: Path, old: str, new: str) -> None:
    text = baked()
    assert old in text
    code, said = verdict(cloud_init, text.replace(old, new, 1), tmp_path)
    assert code != 0
    assert "errors" in said


@pytest.mark.parametrize("text", [baked(), launched()], ids=["bake", "host"])
def test_it_fits_every_clouds_user_data(text: str) -> None:
    assert len(text.encode()) <= MAX_USER_DATA


def test_what_a_host_is_told_arrives_whole() -> None:
    files = {file["path"]: file for file in yaml.safe_load(launched())["write_files"]}
    assert {path: file["permissions"] for path, file in files.items()} == {
        "/etc/paddock/join.json": "0600",
        "/etc/paddock/host.json": "0600",
    }
    assert json.loads(files["/etc/paddock/join.json"]["content"])["cloud"] == "gcp"
    assert json.loads(files["/etc/paddock/host.json"]["content"])["note"] == "a 'quoted': # word"


def written() -> dict[str, str]:
    found = {}
    for file in yaml.safe_load(baked())["write_files"]:
        content = file["content"]
        if file.get("encoding") == "gz+b64":
            content = gzip.decompress(base64.b64decode(content)).decode()
        found[file["path"]] = content
    return found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        *((f"/etc/systemd/system/{unit}", unit) for unit in UNITS),
        ("/usr/local/lib/paddock/join", "join.py"),
        ("/usr/local/lib/paddock/bake", "bake.sh"),
    ],
)
def test_the_image_has_the_files_of_this_folder(path: str, source: str) -> None:
    assert written()[path] == (IMAGE / source).read_text()


def test_the_image_has_the_packages_that_paddock_needs() -> None:
    assert {package.name for package in PACKAGES} <= set(yaml.safe_load(baked())["packages"])


def test_the_script_is_a_script() -> None:
    done = subprocess.run(["sh", "-n", str(IMAGE / "bake.sh")], capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stderr) == (0, "")


# systemd


def verified(units: dict[str, str], where: Path) -> tuple[int, str]:
    """What systemd says of the units; the programs that they start are not here, so empty ones stand for them."""
    paths = []
    for name, text in units.items():
        for program in re.findall(r"^Exec\w+=(/\S+)", text, re.M):
            file = where / program.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o755)
        paths.append(where / name)
        paths[-1].write_text(re.sub(r"^(Exec\w+=)(/\S+)", rf"\g<1>{where}\g<2>", text, flags=re.M))
    argv = ["systemd-analyze", "verify", "--man=no", *map(str, paths)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def units() -> dict[str, str]:
    return {name: (IMAGE / name).read_text() for name in UNITS}


@needs_systemd
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    assert verified(units(), tmp_path) == (0, "")


@needs_systemd
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("KillMode=process", "KillMode=proces", "kill mode"),
        ("OOMPolicy=continue", "OOMPolcy=continue", "OOMPolcy"),
        ("Requires=paddock-join.service", "Requires=paddock-joins.service", "paddock-joins"),
        ("ExecStart=/opt", "ExecStarts=/opt", "ExecStart"),
    ],
)
def test_systemd_names_a_planted_mistake(tmp_path: Path, old: str, new: str, words: str) -> None:
    spoilt = units()
    assert spoilt["paddock-host.service"].count(old) == 1
    spoilt["paddock-host.service"] = spoilt["paddock-host.service"].replace(old, new)
    _, said = verified(spoilt, tmp_path)
    assert words in said


def exposure(text: str, name: str, where: Path) -> float:
    (where / name).write_text(text)
    argv = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(where / name)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


@needs_systemd
@pytest.mark.parametrize(("name", "most"), [("paddock-join.service", 2.0), ("paddock-host.service", 5.0)])
def test_the_units_are_shut_as_far_as_systemd_can(tmp_path: Path, name: str, most: float) -> None:
    text = units()[name]
    assert exposure(text, name, tmp_path) <= most
    assert exposure(re.sub(r"^(Protect|Restrict|NoNew|Cap)\w+=.*\n", "", text, flags=re.M), name, tmp_path) > most


def test_only_the_joining_unit_reaches_the_metadata_service() -> None:
    said: dict[str, Any] = {name: re.findall(r"^IPAddressDeny=(.*)$", text, re.M) for name, text in units().items()}
    assert said["paddock-join.service"] == []
    assert "169.254.169.254/32" in said["paddock-host.service"][0].split()
