"""`paddock doctor`: what this machine can do, what is missing, and the command that fixes it."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from paddock.contracts.base import Wire
from paddock.contracts.errors import PaddockError
from paddock.embedded import assets, packages, temporal_binary
from paddock.embedded.server import Ports
from paddock.embedded.setup import QEMU

OLDEST_PYTHON: Final = (3, 11)
OLDEST_QEMU: Final = (7, 0)
WANTED_DISK_BYTES: Final = 6 << 30
WANTED_MEMORY_BYTES: Final = 2 << 30
CONTROLLERS: Final = ("memory", "pids", "cpu")
MAKE_SETUP: Final = "make setup"


class Health(StrEnum):
    """`missing` keeps sandboxes from running; `weak` means that they run with less speed or less separation."""

    FINE = "fine"
    WEAK = "weak"
    MISSING = "missing"


class Finding(Wire):
    """One thing looked at: how it stands, what was seen, and the command that improves it."""

    name: str
    health: Health
    seen: str
    remedy: str = ""


class Diagnosis(Wire):
    """All findings; `able` when nothing needed is missing."""

    able: bool
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Another kernel or VMM to look at than what set-up recorded."""

    kernel: Path | None = None
    qemu: Path | None = None


def examine(choice: Choice | None = None, *, cache: Path | None = None) -> Diagnosis:
    """Looks at everything and changes nothing; takes a second or two, most of it for trying a guest on KVM."""
    findings = tuple(_findings(choice or Choice(), cache or assets.cache_dir()))
    return Diagnosis(able=all(f.health is not Health.MISSING for f in findings), findings=findings)


def _findings(choice: Choice, cache: Path) -> Iterator[Finding]:
    yield _python()
    yield _machine()
    yield _user()
    yield _cgroups()
    yield from _packages(choice)
    yield _qemu(choice)
    yield _kvm(choice, cache)
    yield _built(choice, cache)
    yield _temporal(cache)
    yield _ports()
    yield _disk(cache)
    yield _memory()


def _python() -> Finding:
    seen = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info >= OLDEST_PYTHON:
        return Finding(name="python", health=Health.FINE, seen=seen)
    return Finding(name="python", health=Health.MISSING, seen=seen, remedy="apt-get install python3.11 python3.11-venv")


def _machine() -> Finding:
    seen = f"{platform.system()} {platform.release()} on {platform.machine()}, {os.cpu_count()} processors"
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        return Finding(name="machine", health=Health.FINE, seen=seen)
    return Finding(name="machine", health=Health.MISSING, seen=seen, remedy="this version runs on Linux on x86_64 only")


def _user() -> Finding:
    match packages.power():
        case packages.Power.ROOT:
            return Finding(name="user", health=Health.FINE, seen="root: each sandbox gets uids and cgroups of its own")
        case packages.Power.SUDO:
            return Finding(
                name="user",
                health=Health.WEAK,
                seen=f"uid {os.geteuid()}, sudo is there: sandboxes share your uid (docs/limits.md)",
                remedy="sudo paddock up, for a uid and cgroup per sandbox",
            )
        case packages.Power.NONE:
            return Finding(
                name="user",
                health=Health.WEAK,
                seen=f"uid {os.geteuid()}, no sudo: sandboxes share your uid (docs/limits.md)",
                remedy="run as root, for a uid and cgroup per sandbox",
            )


def cgroup_kind(mounts: str) -> str:
    """`v2`, `hybrid` (v1 controllers beside a v2 tree), `v1` or `none`, from the text of /proc/mounts."""
    kinds = {line.split()[2] for line in mounts.splitlines() if len(line.split()) > 2}
    return {
        (True, True): "hybrid",
        (True, False): "v2",
        (False, True): "v1",
        (False, False): "none",
    }["cgroup2" in kinds, "cgroup" in kinds]


def _cgroups() -> Finding:
    mounts = Path("/proc/mounts").read_text()
    kind = cgroup_kind(mounts)
    points = [line.split()[1] for line in mounts.splitlines() if line.split()[2].startswith("cgroup")]
    writable = any(os.access(point, os.W_OK) for point in points)
    lacking = [name for name in CONTROLLERS if not _has_controller(name, mounts)]
    if kind == "none" or not writable:
        seen = f"{kind}, not writable: limits come from the guest's own size only"
        return Finding(name="cgroups", health=Health.WEAK, seen=seen, remedy="run as root")
    if lacking:
        seen = f"{kind}, without {', '.join(lacking)}"
        return Finding(name="cgroups", health=Health.WEAK, seen=seen, remedy="enable them on the kernel's command line")
    return Finding(name="cgroups", health=Health.FINE, seen=f"{kind}, writable, with {', '.join(CONTROLLERS)}")


def _has_controller(name: str, mounts: str) -> bool:
    for line in mounts.splitlines():
        _, point, kind, options = line.split()[:4]
        if kind == "cgroup" and name in options.split(","):
            return True
        controllers = Path(point) / "cgroup.controllers"
        if kind == "cgroup2" and controllers.exists() and name in controllers.read_text().split():
            return True
    return False


def _packages(choice: Choice) -> Iterator[Finding]:
    for package in packages.PACKAGES:
        if choice.qemu and QEMU in package.programs:
            continue
        if packages.present(package):
            where = ", ".join(packages.find(program) or program for program in package.programs) or "in this Python"
            yield Finding(name=package.name, health=Health.FINE, seen=where)
        else:
            yield Finding(
                name=package.name,
                health=Health.MISSING,
                seen=f"not found; it {package.why}",
                remedy=packages.command([package]),
            )


def _vmm(choice: Choice) -> str | None:
    return str(choice.qemu) if choice.qemu else packages.find(QEMU)


def _qemu(choice: Choice) -> Finding:
    program = _vmm(choice)
    version = _qemu_version(program) if program else None
    if version is None:
        return Finding(
            name="QEMU",
            health=Health.MISSING,
            seen=f"{program or QEMU} does not run",
            remedy="apt-get install --no-install-recommends qemu-system-x86",
        )
    if tuple(map(int, version.split(".")[:2])) < OLDEST_QEMU:
        oldest = ".".join(map(str, OLDEST_QEMU))
        return Finding(name="QEMU", health=Health.MISSING, seen=version, remedy=f"install QEMU {oldest} or newer")
    return Finding(name="QEMU", health=Health.FINE, seen=f"{version} at {program}")


def _qemu_version(program: str) -> str | None:
    try:
        words = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"version (\d+\.\d+(?:\.\d+)?)", words)
    return found.group(1) if found else None


def _kvm(choice: Choice, cache: Path) -> Finding:
    """KVM counts only when a guest ran on it: /dev/kvm opens on machines where every guest dies."""
    from paddock.embedded.probe import probe

    try:
        support = probe(cache, kernel=choice.kernel, qemu=_vmm(choice))
    except PaddockError as error:
        return Finding(name="KVM", health=Health.WEAK, seen=f"not tried: {error.info.message}", remedy=MAKE_SETUP)
    if not support.works:
        return Finding(name="KVM", health=Health.MISSING, seen=support.why, remedy=MAKE_SETUP)
    if support.accel == "kvm":
        return Finding(name="KVM", health=Health.FINE, seen="proven: a guest ran on it")
    return Finding(
        name="KVM",
        health=Health.WEAK,
        seen=f"not usable, {support.accel} instead: {support.why}".rstrip(": "),
        remedy="a machine with KVM (bare metal or nested virtualisation) runs guests 10 to 20 times as fast",
    )


def _built(choice: Choice, cache: Path) -> Finding:
    if choice.kernel and not choice.kernel.is_file():
        return Finding(name="guest", health=Health.MISSING, seen=f"{choice.kernel} is no file", remedy="name a kernel")
    try:
        known = assets.load(cache)
    except PaddockError as error:
        return Finding(name="guest", health=Health.MISSING, seen=error.info.message, remedy=MAKE_SETUP)
    seen = f"kernel, initrd and {len(known.images)} image(s) in {cache}"
    return Finding(name="guest", health=Health.FINE, seen=seen)


def _temporal(cache: Path) -> Finding:
    if address := os.environ.get("TEMPORAL_ADDRESS"):
        return Finding(name="Temporal", health=Health.FINE, seen=f"TEMPORAL_ADDRESS={address} is used")
    try:
        binary = temporal_binary.load(cache)
    except PaddockError as error:
        return Finding(name="Temporal", health=Health.MISSING, seen=error.info.message, remedy=MAKE_SETUP)
    return Finding(
        name="Temporal", health=Health.FINE, seen=f"server {binary.server} ({binary.origin}) at {binary.path}"
    )


def _ports() -> Finding:
    try:
        Ports.free()
    except PaddockError as error:
        return Finding(name="ports", health=Health.MISSING, seen=error.info.message, remedy="end what holds them")
    return Finding(name="ports", health=Health.FINE, seen="free ones on loopback")


def _disk(cache: Path) -> Finding:
    place = next(parent for parent in (cache, *cache.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    seen = f"{free / (1 << 30):.1f} GiB free for {cache}"
    if free < WANTED_DISK_BYTES:
        wanted = WANTED_DISK_BYTES >> 30
        remedy = f"free {wanted} GiB (building the Temporal server needs most of it), or set XDG_CACHE_HOME"
        return Finding(name="disk", health=Health.WEAK, seen=seen, remedy=remedy)
    return Finding(name="disk", health=Health.FINE, seen=seen)


def _memory() -> Finding:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    available = int(found.group(1)) << 10 if found else 0
    health = Health.FINE if available >= WANTED_MEMORY_BYTES else Health.WEAK
    remedy = "" if health is Health.FINE else "end other programs: about 60 MiB a sandbox, 500 MiB for the rest"
    return Finding(name="memory", health=health, seen=f"{available / (1 << 30):.1f} GiB available", remedy=remedy)
