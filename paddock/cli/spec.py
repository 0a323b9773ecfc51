"""A sandbox as options of the command line: shared by `run` and `sandbox start`."""

import asyncio
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paddock.contracts.errors import ErrorKind, PaddockError

if TYPE_CHECKING:
    from paddock.client.connect import Paddock

ImageOption = Annotated[str, typer.Option("--image", help="What the sandbox boots.")]
PolicyOption = Annotated[str, typer.Option("--policy", help="What it may reach: a name, name@revision, or a file.")]
InOption = Annotated[list[str] | None, typer.Option("--in", help="File or directory to bring in, PATH[:GUEST].")]
LifetimeOption = Annotated[str, typer.Option("--lifetime", help="Longest life of the sandbox: 90s, 15m, 2h.")]
MemoryOption = Annotated[int, typer.Option("--memory", help="MiB of memory.")]
VcpuOption = Annotated[int, typer.Option("--vcpu", help="Virtual processors.")]
DiskOption = Annotated[int, typer.Option("--disk", help="MiB that it may write.")]
NameOption = Annotated[str | None, typer.Option("--name", help="The sandbox's name; a fresh one by default.")]
EnvironmentOption = Annotated[str, typer.Option("--environment", help="Where it runs.")]
WaitOption = Annotated[str, typer.Option("--wait", help="Longest wait for a free slot.")]
EnvOption = Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=value, or NAME to pass it on.")]
CwdOption = Annotated[str, typer.Option("--cwd", help="Where the program starts.")]

_DURATION = re.compile(r"(\d{1,9})(s|m|h|d|)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> int:
    """`90`, `90s`, `15m`, `2h` or `1d`, in seconds."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r}: a number of seconds, or like 90s, 15m, 2h, 1d")
    return int(found[1]) * _SECONDS[found[2]]


def variable(text: str) -> tuple[str, str]:
    """`NAME=value`, or `NAME` for the value that it has here."""
    name, equals, value = text.partition("=")
    if not name:
        raise typer.BadParameter(f"{text!r}: NAME=value, or NAME to pass on its value here")
    if equals:
        return name, value
    if name not in os.environ:
        raise typer.BadParameter(f"{name} is not set here: give it as {name}=value")
    return name, os.environ[name]


def place(text: str) -> tuple[str, Path]:
    """`PATH` or `PATH:GUEST`: a directory becomes /work itself, a file keeps its name, GUEST is below /work."""
    local, colon, guest = text.rpartition(":")
    if colon and local and not Path(text).exists():
        return guest, Path(local)
    path = Path(text)
    return ("." if path.is_dir() else path.resolve().name), path


def places(texts: list[str] | None) -> dict[str, Path]:
    """Every `--in`, by its place in the guest."""
    return dict(place(text) for text in texts or ())


def fields(
    *, image: str, environment: str, vcpu: int, memory: int, disk: int, lifetime: str, wait: str
) -> dict[str, Any]:
    """The fields of the spec that both commands name."""
    return {
        "image": image,
        "environment": environment,
        "shape": {"vcpu": vcpu, "memory_mib": memory, "disk_mib": disk},
        "lifetime_s": seconds(lifetime),
        "place_timeout_s": seconds(wait),
    }


async def policy_name(paddock: "Paddock", policy: str) -> str:
    """A policy's name; a file is checked and kept first, and named with its new revision."""
    path = Path(policy)
    if not (path.suffix in (".yaml", ".yml") or "/" in policy):
        return policy
    try:
        text = await asyncio.to_thread(path.read_text)
    except (OSError, UnicodeDecodeError) as wrong:
        words = wrong.strerror or str(wrong) if isinstance(wrong, OSError) else "not a text"
        raise PaddockError(
            ErrorKind.BAD_POLICY, f"the policy file cannot be read: {words}", field=policy, remedy="name another file"
        ) from wrong
    applied = await paddock.apply_policy(text, file=str(path), author=os.environ.get("USER", ""))
    return f"{applied.name}@{applied.revision}"
