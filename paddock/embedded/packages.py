"""System packages: which programs Paddock needs, which are missing, and how they get installed."""

import ensurepip
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.embedded.progress import Say

LISTS: Final = Path("/var/lib/apt/lists")
OLD_LISTS_S: Final = 86_400.0
INSTALL_TIMEOUT_S: Final = 1_200.0


@dataclass(frozen=True, slots=True)
class SystemPackage:
    """A Debian package, the programs it brings, and what Paddock does with them."""

    name: str
    programs: tuple[str, ...]
    why: str


PACKAGES: Final = (
    SystemPackage("qemu-system-x86", ("qemu-system-x86_64",), "runs the microVMs"),
    SystemPackage("erofs-utils", ("mkfs.erofs",), "writes guest images"),
    SystemPackage("mmdebstrap", ("mmdebstrap",), "makes the base image"),
    SystemPackage("python3-venv", (), "makes .venv"),
)

WITHOUT_ROOT: Final = (SystemPackage("uidmap", ("newuidmap", "newgidmap"), "lets a user make the base image"),)
"""What making the base image needs beside `PACKAGES` where it is not root who makes it."""


class Power(StrEnum):
    """How this process may install packages."""

    ROOT = "root"
    SUDO = "sudo"
    NONE = "none"


def power() -> Power:
    """Root installs at once, sudo after a question, nobody else at all."""
    if os.geteuid() == 0:
        return Power.ROOT
    return Power.SUDO if shutil.which("sudo") else Power.NONE


def find(program: str) -> str | None:
    """Where a program is; looks in the system's own folders too, which a plain user's PATH often lacks."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(program, path=f"{path}:/usr/local/sbin:/usr/sbin:/sbin")


def missing(packages: Iterable[SystemPackage] = PACKAGES) -> tuple[SystemPackage, ...]:
    """The packages whose programs are not on this machine, whoever installed them."""
    return tuple(package for package in packages if not present(package))


def present(package: SystemPackage) -> bool:
    if package.name == "python3-venv":
        return bool(ensurepip.version())
    return all(find(program) for program in package.programs)


def command(packages: Iterable[SystemPackage]) -> str:
    """What a person types to install `packages` on Debian."""
    return f"apt-get install --no-install-recommends {' '.join(package.name for package in packages)}"


def install(
    packages: tuple[SystemPackage, ...], say: Say, *, agree: Callable[[str], bool], log: Path, who: Power | None = None
) -> None:
    """Installs `packages` and looks for their programs again; `agree` is asked before sudo is used.

    Raises PaddockError SET_UP with the command to run when it may not or cannot.
    """
    who = power() if who is None else who
    if not find("apt-get"):
        raise PaddockError(
            ErrorKind.SET_UP,
            f"missing programs: {', '.join(p for package in packages for p in package.programs)}; no apt-get here",
            remedy="install them with this system's package manager, then run `make setup` again",
        )
    names = ", ".join(f"{package.name} ({package.why})" for package in packages)
    if who is Power.NONE or (who is Power.SUDO and not agree(f"install {names} with sudo?")):
        raise PaddockError(ErrorKind.SET_UP, f"missing packages: {names}", remedy=f"run as root: {command(packages)}")
    prefix = ["sudo"] if who is Power.SUDO else []
    if _lists_age_s() > OLD_LISTS_S:
        say("reading the package lists", None)
        _apt(prefix, ["update", "-q"], say, log)
    try:
        _apt(prefix, _install_arguments(packages), say, log)
    except PaddockError:
        # Lists that look fresh can name versions that the mirror dropped since.
        _apt(prefix, ["update", "-q"], say, log)
        _apt(prefix, _install_arguments(packages), say, log)
    if still := missing(packages):
        raise PaddockError(
            ErrorKind.SET_UP,
            f"installed, but not found: {', '.join(p for package in still for p in package.programs)}",
            remedy=f"look into {log}",
        )


def refresh_lists(say: Say, *, log: Path) -> None:
    """Reads APT's package lists again where they are older than a day and this process is root; else does nothing.

    The guest kernel and the base image come from the same lists, also where every program is already there.
    """
    if power() is Power.ROOT and find("apt-get") and _lists_age_s() > OLD_LISTS_S:
        _apt([], ["update", "-q"], say, log)


def _install_arguments(packages: tuple[SystemPackage, ...]) -> list[str]:
    return ["install", "-y", "-q", "--no-install-recommends", *(package.name for package in packages)]


def _lists_age_s() -> float:
    try:
        newest = max((entry.stat().st_mtime for entry in LISTS.iterdir() if entry.is_file()), default=0.0)
    except OSError:
        newest = 0.0
    return time.time() - newest


def _apt(prefix: list[str], arguments: list[str], say: Say, log: Path) -> None:
    """Runs apt-get, its words into `log`, its own progress (status descriptor 1) to `say`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    argv = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "APT::Status-Fd=1", *arguments]
    say(arguments[0], None)
    with (
        log.open("ab") as words,
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=words) as process,
    ):
        assert process.stdout is not None
        deadline = time.monotonic() + INSTALL_TIMEOUT_S
        for line in process.stdout:
            words.write(line)
            if time.monotonic() > deadline:
                process.terminate()
                break
            if status := parse_status(line.decode("utf-8", "replace")):
                say(*status)
    if process.returncode != 0:
        raise PaddockError(
            ErrorKind.SET_UP,
            f"`apt-get {' '.join(arguments)}` ended with {process.returncode}",
            remedy=f"its words are in {log}",
        )


def parse_status(line: str) -> tuple[str, float] | None:
    """A line of APT's status descriptor, `pmstatus:package:percent:words`, as words and a fraction."""
    parts = line.strip().split(":", 3)
    if len(parts) != 4 or parts[0] not in {"dlstatus", "pmstatus"}:
        return None
    try:
        return parts[3], min(1.0, float(parts[2]) / 100)
    except ValueError:
        return None
