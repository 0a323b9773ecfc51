"""What every VMM driver offers: templates booted once, and copy-on-write clones of them."""

import asyncio
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from paddock.contracts.spec import Shape


@dataclass(frozen=True, slots=True)
class Support:
    """Whether a driver works on this machine, how (`kvm` or `tcg`), and why not better."""

    works: bool
    accel: str
    version: str
    why: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What boots: a kernel, an initrd with the guest agent, and the VMM's program."""

    kernel: Path
    initrd: Path
    qemu: str


@dataclass(frozen=True, slots=True)
class Image:
    """A read-only root file system, named by content."""

    name: str
    path: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Template:
    """A booted guest, saved: `key` is a digest over everything that made it."""

    key: str
    directory: Path
    vcpu: int
    memory_mib: int
    image: Image


@dataclass(frozen=True, slots=True)
class Place:
    """Where one VM lives: its directory, its user, its cgroups, and the template's memory if already open."""

    directory: Path
    uid: int | None = None
    gid: int | None = None
    cgroup_procs: tuple[Path, ...] = ()
    memory_fd: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a VM took: processor seconds, and bytes resident (`pss`: shared pages divided among their users)."""

    cpu_s: float
    rss_bytes: int
    pss_bytes: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How a VMM process ended; exactly one of `code` and `signal` is set. `words` are its last."""

    pid: int
    code: int | None
    signal: int | None
    words: str = ""

    def __str__(self) -> str:
        how = f"exited with {self.code}" if self.signal is None else f"was killed by signal {self.signal}"
        return f"the VMM (pid {self.pid}) {how}" + (f": {self.words}" if self.words else "")


class Vm(Protocol):
    """One running clone."""

    @property
    def pid(self) -> int:
        """Process id of the VMM."""

    @property
    def channel(self) -> socket.socket:
        """The byte stream to the guest agent; may be written before the guest is loaded."""

    @property
    def exited(self) -> "asyncio.Future[Ended]":
        """Done when the VMM was reaped."""

    async def loaded(self) -> None:
        """Wait until the guest runs; PaddockError BOOT_FAILED with the VMM's words when it does not."""

    async def pause(self) -> None:
        """Stop the guest's processors; its clock stops too."""

    async def resume(self) -> None:
        """Let them go on; the guest's clock is behind until it is identified again."""

    async def destroy(self) -> Ended:
        """End the VM and prove it: answers when the process was reaped. Twice is the same as once."""

    def usage(self) -> Usage:
        """What it took so far; zeros when it is gone."""


class Driver(Protocol):
    """One kind of VMM on this machine."""

    name: str

    def probe(self) -> Support:
        """What works here, and why not better; takes at most 2 s."""

    async def build_template(self, image: Image, shape: Shape, directory: Path) -> Template:
        """The template of `image` and `shape` below `directory`: found there and checked, or booted and saved."""

    async def start(self, template: Template, place: Place) -> Vm:
        """A clone, spawned and loading; its channel may be written at once."""
