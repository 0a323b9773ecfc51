"""`paddock doctor`: what this machine can do, what is missing, and the command that fixes it."""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paddock.contracts.base import Wire
from paddock.contracts.errors import PaddockError
from paddock.embedded import assets, ground, packages, temporal_binary
from paddock.embedded.finding import Finding, Health
from paddock.embedded.setup import QEMU

OLDEST_QEMU: Final = (7, 0)
MAKE_SETUP: Final = "make setup"


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
    yield ground.python()
    yield ground.machine()
    yield ground.user()
    yield ground.cgroups()
    yield from _packages(choice)
    yield _qemu(choice)
    yield _kvm(choice, cache)
    yield _built(choice, cache)
    yield _temporal(cache)
    yield ground.ports()
    yield ground.disk(cache)
    yield ground.memory()


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
