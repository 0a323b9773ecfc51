"""browser.sh and node.sh: a real apt-get on a root of its own, its lists empty, and the words where it cannot help."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
PACKAGES = {
    "browser.sh": {"chromium": "chromium", "fonts-dejavu-core": ""},
    "node.sh": {"nodejs": "node", "npm": "npm"},
}
"""By script: the packages that it installs, and the program of each."""
BASICS = ("bash", "dirname", "env", "id", "timeout")

pytestmark = pytest.mark.parametrize("script", sorted(PACKAGES))
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: dpkg gives files to root")
APT_ONLY = pytest.mark.skipif(not shutil.which("apt-get") or not shutil.which("dpkg-deb"), reason="no apt-get here")


@dataclass
class Machine:
    """A PATH of its own, and a root for apt and dpkg that starts with nothing: no list, no package."""

    place: Path

    @property
    def programs(self) -> Path:
        return self.place / "bin"

    @property
    def installed(self) -> Path:
        return self.place / "root" / "usr" / "bin"

    def run(self, script: str, user: int | None = None) -> list[str]:
        """The lines that a script says; it must end well and say nothing on standard error."""
        done = subprocess.run(
            [self.programs / "bash", ROOT / "packaging" / script],
            env={"PATH": f"{self.programs}:{self.installed}", "APT_CONFIG": str(self.place / "apt.conf")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            user=user,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout.splitlines()

    def add(self, name: str, text: str = "exit 0") -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def link(self, *names: str) -> None:
        for name in names:
            (self.programs / name).symlink_to(shutil.which(name) or "")


@pytest.fixture
def machine() -> Iterator[Machine]:
    place = Path(tempfile.mkdtemp(prefix="paddock-apt-"))
    try:
        place.chmod(0o755)  # also for `nobody`
        machine = Machine(place)
        machine.programs.mkdir()
        machine.link(*BASICS)
        yield machine
    finally:
        shutil.rmtree(place)


@pytest.fixture
def debian(machine: Machine) -> Machine:
    """With this machine's own apt-get and dpkg, which see that root only and the mirror `place/mirror` only."""
    root, place = machine.place / "root", machine.place
    for name in (
        "etc/apt/apt.conf.d",
        "etc/apt/preferences.d",
        "etc/apt/trusted.gpg.d",
        "var/cache/apt/archives/partial",
        "var/lib/apt/lists/partial",
        "var/lib/dpkg/info",
        "var/lib/dpkg/updates",
        "var/log/apt",
        "usr/bin",
    ):
        (root / name).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    (root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{place}/mirror ./\n")
    (place / "apt.conf").write_text(
        f'Dir "{root}";\nDir::State::status "{root}/var/lib/dpkg/status";\nDir::Bin::dpkg "{shutil.which("dpkg")}";\n'
        f'Dir::Bin::methods "/usr/lib/apt/methods";\nAPT::Sandbox::User "root";\n'
        f'DPkg::Options {{ "--root={root}"; "--log={root}/var/log/dpkg.log"; }};\n'
    )
    machine.link("apt-get", "dpkg", "dpkg-deb", "dpkg-split", "tar", "rm", "diff", "sh")
    machine.link(*(name for name in ("ldconfig", "start-stop-daemon", "dpkg-query") if shutil.which(name)))
    (place / "mirror").mkdir()
    (place / "mirror" / "Packages").touch()
    return machine


def offer(machine: Machine, packages: dict[str, str]) -> None:
    """Put packages on the mirror, each with its program."""
    mirror, entries = machine.place / "mirror", []
    for name, program in packages.items():
        source = machine.place / "source" / name
        control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: a test's own\n"
        (source / "DEBIAN").mkdir(parents=True)
        (source / "DEBIAN" / "control").write_text(control)
        (source / "usr" / "bin").mkdir(parents=True)
        if program:
            (source / "usr" / "bin" / program).write_text("#!/bin/bash\necho 1\n")
            (source / "usr" / "bin" / program).chmod(0o755)
        subprocess.run(["dpkg-deb", "--build", source, mirror / f"{name}.deb"], check=True, capture_output=True)
        data = (mirror / f"{name}.deb").read_bytes()
        entries.append(
            f"{control}Filename: ./{name}.deb\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        )
    (mirror / "Packages").write_text("\n".join([*entries, ""]))


# What can be done


@APT_ONLY
@ROOT_ONLY
def test_on_a_clean_debian_with_empty_lists_it_installs_and_the_next_run_says_nothing(
    script: str, debian: Machine
) -> None:
    offer(debian, PACKAGES[script])
    assert not list((debian.place / "root/var/lib/apt/lists").glob("*Packages*"))
    said = debian.run(script)
    names = " ".join(PACKAGES[script])
    assert said[0] == f"paddock: installing {names}"
    assert said[1].startswith(f"paddock: installed {names} in "), said
    assert len(said) == 2
    for program in filter(None, PACKAGES[script].values()):
        assert (debian.installed / program).exists()
    shutil.rmtree(debian.place / "mirror")  # whoever asks it now hears of it
    assert debian.run(script) == []


@APT_ONLY
@ROOT_ONLY
def test_a_program_that_does_not_start_does_not_count(script: str, debian: Machine) -> None:
    offer(debian, PACKAGES[script])
    debian.add(next(iter(PACKAGES[script].values())), "exit 127")
    assert debian.run(script)[-1].startswith("paddock: installed ")


def test_where_all_is_there_nobody_is_asked(script: str, machine: Machine) -> None:
    for program in filter(None, PACKAGES[script].values()):
        machine.add(program)
    machine.add("apt-get", "echo asked >&2")
    assert machine.run(script) == []


# What cannot


@APT_ONLY
@ROOT_ONLY
def test_a_package_that_no_mirror_has_is_said_in_one_line(script: str, debian: Machine) -> None:
    said = debian.run(script)
    assert len(said) == 2
    assert "skipped: apt-get install: Unable to locate package" in said[1]
    assert "update" not in said[1]


@APT_ONLY
@ROOT_ONLY
def test_a_mirror_that_cannot_be_read_is_named_as_the_cause(script: str, debian: Machine) -> None:
    shutil.rmtree(debian.place / "mirror")
    said = debian.run(script)
    assert len(said) == 2
    assert "skipped: apt-get install: Unable to locate package" in said[1]
    assert "(apt-get update: " in said[1]
    assert "/mirror" in said[1]


@ROOT_ONLY
def test_an_apt_get_that_says_nothing_has_its_exit_code_said(script: str, machine: Machine) -> None:
    machine.add("apt-get", "exit 71")
    assert machine.run(script)[-1].endswith("skipped: apt-get install: exit code 71 (apt-get update: exit code 71)")


def test_without_apt_get_it_says_that_this_is_no_debian(script: str, machine: Machine) -> None:
    said = machine.run(script)
    assert len(said) == 1
    assert "skipped: this is not Debian; install " in said[0]


@pytest.mark.parametrize("sudo", [True, False])
def test_who_is_not_root_is_told_the_command_and_nothing_is_tried(script: str, sudo: bool, machine: Machine) -> None:
    machine.add("apt-get", "echo tried >&2")
    if sudo:
        machine.add("sudo", "echo tried >&2")
    said = machine.run(script, user=NOBODY if os.geteuid() == 0 else None)
    command = f"sudo bash packaging/{script}" if sudo else f"as root: bash packaging/{script}"
    assert len(said) == 1
    assert said[0].endswith(command)
