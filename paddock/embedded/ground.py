"""What the doctor sees of the machine itself: Python, processor, user, cgroups, ports, disk, memory."""

import os
import platform
import re
import shutil
import sys
from pathlib import Path
from typing import Final

from paddock.contracts.errors import PaddockError
from paddock.embedded import packages
from paddock.embedded.finding import Finding, Health
from paddock.embedded.server import Ports

OLDEST_PYTHON: Final = (3, 11)
WANTED_DISK_BYTES: Final = 6 << 30
WANTED_MEMORY_BYTES: Final = 2 << 30
CONTROLLERS: Final = ("memory", "pids", "cpu")


def python() -> Finding:
    seen = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info >= OLDEST_PYTHON:
        return Finding(name="python", health=Health.FINE, seen=seen)
    return Finding(name="python", health=Health.MISSING, seen=seen, remedy="apt-get install python3.11 python3.11-venv")


def machine() -> Finding:
    seen = f"{platform.system()} {platform.release()} on {platform.machine()}, {os.cpu_count()} processors"
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        return Finding(name="machine", health=Health.FINE, seen=seen)
    return Finding(name="machine", health=Health.MISSING, seen=seen, remedy="this version runs on Linux on x86_64 only")


def user() -> Finding:
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


def cgroups() -> Finding:
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


def ports() -> Finding:
    try:
        Ports.free()
    except PaddockError as error:
        return Finding(name="ports", health=Health.MISSING, seen=error.info.message, remedy="end what holds them")
    return Finding(name="ports", health=Health.FINE, seen="free ones on loopback")


def disk(cache: Path) -> Finding:
    place = next(parent for parent in (cache, *cache.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    seen = f"{free / (1 << 30):.1f} GiB free for {cache}"
    if free < WANTED_DISK_BYTES:
        wanted = WANTED_DISK_BYTES >> 30
        remedy = f"free {wanted} GiB (building the Temporal server needs most of it), or set XDG_CACHE_HOME"
        return Finding(name="disk", health=Health.WEAK, seen=seen, remedy=remedy)
    return Finding(name="disk", health=Health.FINE, seen=seen)


def memory() -> Finding:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    available = int(found.group(1)) << 10 if found else 0
    health = Health.FINE if available >= WANTED_MEMORY_BYTES else Health.WEAK
    remedy = "" if health is Health.FINE else "end other programs: about 60 MiB a sandbox, 500 MiB for the rest"
    return Finding(name="memory", health=health, seen=f"{available / (1 << 30):.1f} GiB available", remedy=remedy)
