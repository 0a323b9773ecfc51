"""Terraform with stand-in plugins that have the real providers' schemas, on a copy of infra/terraform, offline."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.infra import schemas

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCE: Final = ROOT / "infra" / "terraform"
MODULES: Final = ("aws-host-ground", "azure-host-ground", "gcp-host-ground")
LIVE: Final = ("aws-example", "azure-example", "gcp-example")
INSTALL_S: Final = 600.0
RUN_S: Final = 120.0


def cache() -> Path:
    """Where packaging/terraform.sh puts things."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paddock" / "terraform"


@dataclass(frozen=True, slots=True)
class Ground:
    """What a mocked apply says that there would be: each resource's values by its address, and the outputs."""

    resources: Mapping[str, dict[str, Any]]
    outputs: Mapping[str, Any]


class NotHere(Exception):
    """A tool cannot be had on this machine; the words say which and why."""


def install(part: str) -> Path:
    """The directory of a part that packaging/terraform.sh installs. Raises NotHere where it says that it cannot."""
    argv = ["bash", str(ROOT / "packaging" / "terraform.sh"), part]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=INSTALL_S, stdin=subprocess.DEVNULL)
    if done.returncode == 3:
        raise NotHere(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    return cache() / part


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended: its exit code, and all that it said."""

    code: int
    out: str
    err: str

    def events(self) -> list[dict[str, Any]]:
        """What `-json` prints line by line."""
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]


class Terraform:
    """Terraform on a scratch copy of infra/terraform, with a mirror of stand-in plugins as its only source."""

    def __init__(self, tools: Path, scratch: Path) -> None:
        self.tools, self.scratch = tools, scratch
        self.ground = scratch / "terraform"
        shutil.copytree(SOURCE, self.ground, ignore=shutil.ignore_patterns(".terraform*"))
        (scratch / "home").mkdir()
        (scratch / "rc").write_text(
            f'provider_installation {{\n  filesystem_mirror {{\n    path = "{scratch / "mirror"}"\n  }}\n}}\n'
        )
        self.schemas: Mapping[str, dict[str, Any]] = {}
        self._applied: dict[str, Ground] = {}

    def run(self, folder: Path, *argv: str) -> Done:
        """One command in a folder."""
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.scratch / "home"),
            "TF_CLI_CONFIG_FILE": str(self.scratch / "rc"),
            "TF_IN_AUTOMATION": "1",
            "CHECKPOINT_DISABLE": "1",
        }
        done = subprocess.run(
            [str(self.tools / "bin" / "terraform"), *argv],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=RUN_S,
            stdin=subprocess.DEVNULL,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def stand_in(self) -> None:
        """Puts a plugin in place for every provider, with the schemas of what the modules use. Raises NotToBeHad."""
        host = self._registry()
        types = schemas.used(self.ground)
        found = {}
        for binding in schemas.BINDINGS:
            schema = schemas.build(binding, types, cache() / "schemas")
            found[binding.provider] = json.loads(schema.read_text())
            version = binding.provider_version
            folder = self.scratch / "mirror" / host / "hashicorp" / binding.provider / version / "linux_amd64"
            folder.mkdir(parents=True)
            program = folder / f"terraform-provider-{binding.provider}_v{version}"
            plugin, python = Path(__file__).with_name("plugin.py"), self.tools / "bin" / "python"
            program.write_text(
                f"#!/bin/sh\nexport PADDOCK_STANDIN_SCHEMA='{schema}' PYTHONDONTWRITEBYTECODE=1\n"
                f"exec '{python}' '{plugin}' \"$@\"\n"
            )
            program.chmod(0o755)
        self.schemas = found

    def _registry(self) -> str:
        """The host under which Terraform itself looks for a provider that names none: a mirror is laid out by it."""
        done = self.run(self.ground / "modules" / MODULES[0], "providers")
        found = re.search(r"provider\[([^/\]]+)/hashicorp/", done.out)
        assert found, done
        return found[1]

    def ready(self, folder: Path) -> Path:
        """The folder, initialised: every provider found, its version as the module asks."""
        if not (folder / ".terraform").exists():
            done = self.run(folder, "init", "-backend=false", "-input=false", "-no-color")
            assert done.code == 0, done.out + done.err
        return folder

    def validate(self, folder: Path) -> list[str]:
        """What is wrong, each as `file:line: words`; nothing when all is right."""
        done = self.run(self.ready(folder), "validate", "-json")
        said = json.loads(done.out)
        assert said["valid"] == (done.code == 0)
        return [_words(one) for one in said["diagnostics"]]

    def copy(self, folder: str, to: Path) -> Path:
        """A fresh copy of all of infra/terraform, and in it the folder."""
        shutil.copytree(SOURCE, to / "terraform", ignore=shutil.ignore_patterns(".terraform*"))
        return to / "terraform" / folder

    def test(self, folder: Path, *argv: str) -> Done:
        """`terraform test` of a module, every run's state or plan told."""
        return self.run(self.ready(folder), "test", "-json", "-verbose", *argv)

    def applied(self, module: str) -> Ground:
        """The state after run `ground` of a module's own tests."""
        if module not in self._applied:
            done = self.test(self.ground / "modules" / module, "-filter=tests/ground.tftest.hcl")
            assert not failures(done)
            [state] = [
                e["test_state"] for e in done.events() if e["type"] == "test_state" and e["@testrun"] == "ground"
            ]
            resources = {one["address"]: one["values"] for one in state["root_module"]["resources"]}
            outputs = {name: one["value"] for name, one in state["outputs"].items()}
            self._applied[module] = Ground(resources, outputs)
        return self._applied[module]


def _words(said: Mapping[str, Any]) -> str:
    place = said.get("range") or {}
    line = (place.get("start") or {}).get("line", "")
    return f"{place.get('filename', '')}:{line}: {said['summary']}: {said['detail']}"


def failures(done: Done) -> list[str]:
    """Each run of `terraform test -json` that did not pass, with every error that was said; nothing when all passed."""
    events = done.events()
    ended = [one["test_run"] for one in events if one["type"] == "test_run" and "status" in one["test_run"]]
    bad = [f"{one['run']}: {one['status']}" for one in ended if one["status"] != "pass"]
    if done.code == 0 and ended and not bad:
        return []
    words = [_words(one["diagnostic"]) for one in events if one["type"] == "diagnostic" and one["@level"] == "error"]
    return [*bad, *words, done.err, f"exit code {done.code}"]
