"""Real microVMs for tests: a template booted once a run, clones of it, and programs in them."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from paddock.contracts.errors import PaddockError
from paddock.contracts.spec import Shape
from paddock.embedded import assets
from paddock.microvm.channel.handle import ExecHandle
from paddock.microvm.channel.link import GuestHandler, Link, fresh_identity
from paddock.microvm.channel.messages import ExecRequest, ExitStatus
from paddock.microvm.driver import Image, Machine, Place, Template
from paddock.microvm.qemu.driver import QemuDriver
from paddock.microvm.qemu.vm import QemuVm
from tests.microvm.fake_guest import Handler

DEADLINE_S = 60.0
PATH = ("PATH", "/usr/local/bin:/usr/bin:/bin")
_numbers = itertools.count()


@dataclass
class Lab:
    """One driver, one template, and a directory for clones."""

    driver: QemuDriver
    image: Image
    template: Template
    directory: Path


def build_lab(directory: Path) -> Lab:
    """Boot the template; skips with the reason when this machine has not been set up."""
    try:
        found = assets.load(assets.cache_dir())
    except PaddockError as missing:
        pytest.skip(f"no microVM here: {missing}")
    driver = QemuDriver(Machine(Path(found.kernel), Path(found.initrd), found.qemu))
    base = found.images["base"]
    image = Image(base.name, Path(base.path), base.digest)
    template = asyncio.run(driver.build_template(image, Shape(), directory / "templates"))
    return Lab(driver, image, template, directory)


@dataclass
class Box:
    """A running clone and its link."""

    vm: QemuVm
    link: Link
    directory: Path
    outputs: dict[int, dict[int, bytearray]] = field(default_factory=dict)

    def start(
        self, *argv: str, uid: int = 1000, stdin: bool = False, cwd: str = "/"
    ) -> tuple[ExecHandle, dict[int, bytearray]]:
        output = {1: bytearray(), 2: bytearray()}
        request = ExecRequest(argv, (PATH,), cwd, uid, uid, stdin)
        return self.link.exec(request, lambda chan, data: output[chan].extend(data)), output

    async def run(self, *argv: str, uid: int = 1000, cwd: str = "/") -> tuple[ExitStatus, bytes, bytes]:
        handle, output = self.start(*argv, uid=uid, cwd=cwd)
        status = await asyncio.wait_for(handle.exit(), DEADLINE_S)
        handle.forget()
        return status, bytes(output[1]), bytes(output[2])

    async def sh(self, script: str, uid: int = 1000) -> str:
        status, out, err = await self.run("/bin/sh", "-c", script, uid=uid)
        assert (status.how, status.value) == (0, 0), f"{status} {out!r} {err!r}"
        return out.decode()


@asynccontextmanager
async def clone(
    lab: Lab, handler: GuestHandler | None = None, place: Place | None = None, name: str = "box"
) -> AsyncIterator[Box]:
    """A clone that has said hello; gone when the block ends."""
    place = place or Place(lab.directory / f"clone-{next(_numbers)}")
    vm = await lab.driver.start(lab.template, place)
    try:
        link = await Link.open(
            vm.channel, identity=fresh_identity(name, f"{next(_numbers):032x}"), guest=handler or Handler()
        )
        await asyncio.wait_for(vm.loaded(), DEADLINE_S)
        await asyncio.wait_for(link.hello(), DEADLINE_S)
        yield Box(vm, link, place.directory)
        link.close()
    finally:
        await vm.destroy()
        shutil.rmtree(place.directory, ignore_errors=True)


async def chunks(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
