"""MicroVMs: from spawn, or from a ready clone, to the first program's reply; memory of idle ones; the channel's speed.

`python -m bench.microvm` prints the rows. QEMU's own part only: no supervisor, no Temporal.
"""

import asyncio
import contextlib
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import uvloop

from bench.row import Row
from paddock.contracts.spec import Shape
from paddock.embedded import assets
from paddock.microvm.channel.link import Link, fresh_identity
from paddock.microvm.channel.messages import ExecRequest
from paddock.microvm.channel.transport import GuestTransport
from paddock.microvm.driver import Image, Machine, Place, Template
from paddock.microvm.qemu.driver import QemuDriver
from paddock.microvm.qemu.vm import QemuVm

ALIVE: Final = 8
DEADLINE_S: Final = 60.0
ECHO: Final = ExecRequest(("/bin/echo", "hi"), (("PATH", "/usr/bin:/bin"),), "/")
MIB: Final = 1 << 20


class Nobody:
    """A fence that lets nothing out."""

    def connect(self, transport: GuestTransport, address: str, port: int) -> None:
        transport.refuse("")

    async def dns(self, query: bytes, tcp: bool) -> bytes | None:
        return None

    def event(self, kind: int, payload: bytes) -> None:
        pass


@contextlib.asynccontextmanager
async def bench_lab(directory: Path) -> AsyncIterator[tuple[QemuDriver, Template]]:
    """A driver and its template, the memory already open."""
    found = assets.load(assets.cache_dir())
    driver = QemuDriver(Machine(Path(found.kernel), Path(found.initrd), found.qemu))
    base = found.images["base"]
    image = Image(base.name, Path(base.path), base.digest)
    template = await driver.build_template(image, Shape(), directory / "templates")
    warm = await driver.start(template, Place(directory / "warm"))
    await warm.loaded()
    await warm.destroy()
    try:
        yield driver, template
    finally:
        driver.close()


async def echo(link: Link) -> None:
    """One program's whole life, its output checked."""
    out = bytearray()
    handle = link.exec(ECHO, lambda chan, data: out.extend(data))
    status = await asyncio.wait_for(handle.exit(), DEADLINE_S)
    handle.forget()
    if (status.value, bytes(out)) != (0, b"hi\n"):
        raise RuntimeError(f"echo said {bytes(out)!r} and {status}")


async def clone(driver: QemuDriver, template: Template, directory: Path, number: int) -> tuple[QemuVm, Link]:
    """A clone on its way, its identity written."""
    vm = await driver.start(template, Place(directory / str(number)))
    return vm, await Link.open(vm.channel, identity=fresh_identity("box", f"{number:032x}"), guest=Nobody())


async def cold_ms(driver: QemuDriver, template: Template, directory: Path, n: int) -> list[float]:
    """Spawn → first program's end, one clone alive at a time."""
    times = []
    for number in range(n):
        begin = time.perf_counter()
        vm, link = await clone(driver, template, directory, number)
        await echo(link)
        times.append((time.perf_counter() - begin) * 1000)
        link.close()
        await vm.destroy()
    return times


async def ready_ms(driver: QemuDriver, template: Template, directory: Path, n: int) -> list[float]:
    """A paused, warmed clone: new identity and first program handed over, resumed → that program's end."""
    times = []
    for number in range(n):
        vm, link = await clone(driver, template, directory, number)
        await echo(link)
        await link.ping()
        await vm.pause()
        begin = time.perf_counter()
        link.identify(fresh_identity("handed-out", f"{number:032x}"))
        resumed = asyncio.ensure_future(vm.resume())
        await echo(link)
        times.append((time.perf_counter() - begin) * 1000)
        await resumed
        link.close()
        await vm.destroy()
    return times


async def idle_mib(driver: QemuDriver, template: Template, directory: Path) -> list[float]:
    """PSS of each of eight clones that ran one program and are paused."""
    boxes = []
    try:
        for number in range(ALIVE):
            vm, link = await clone(driver, template, directory, number)
            boxes.append((vm, link))
            await echo(link)
            await vm.pause()
        return [vm.usage().pss_bytes / MIB for vm, _ in boxes]
    finally:
        for vm, link in boxes:
            link.close()
            await vm.destroy()


async def channel(
    driver: QemuDriver, template: Template, directory: Path
) -> tuple[list[float], list[float], list[float]]:
    """Bytes out of and into the guest in MB/s, five times each, and pings in µs."""
    vm, link = await clone(driver, template, directory, 0)
    path = (("PATH", "/usr/bin:/bin"),)
    size = 64 * MIB
    out, into = [], []
    try:
        await link.hello()
        for _ in range(5):
            begin = time.perf_counter()
            handle = link.exec(ExecRequest(("head", "-c", str(size), "/dev/zero"), path, "/"), lambda chan, data: None)
            await handle.exit()
            handle.forget()
            out.append(size / (time.perf_counter() - begin) / 1e6)
            begin = time.perf_counter()
            request = ExecRequest(("sh", "-c", "exec cat > /dev/null"), path, "/", stdin=True)
            handle = link.exec(request, lambda chan, data: None)
            for _ in range(size // MIB):
                await handle.write_stdin(bytes(MIB))
            handle.stdin_eof()
            await handle.exit()
            handle.forget()
            into.append(size / (time.perf_counter() - begin) / 1e6)
        pings = [await link.ping() * 1e6 for _ in range(200)]
    finally:
        link.close()
        await vm.destroy()
    return out, into, pings


def row(name: str, unit: str, values: list[float], target: float | None = None) -> Row:
    """Median and 99th percentile (the largest of fewer than 100)."""
    ordered = sorted(values)
    return Row(
        name,
        unit,
        statistics.median(ordered),
        ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
        len(ordered),
        target,
    )


async def rows(n: int = 20) -> list[Row]:
    """The rows of this file; `vm_idle_pss_mib` is the VM's part of `idle_pss_mib`."""
    directory = Path(tempfile.mkdtemp(prefix="paddock-bench-"))
    try:
        async with bench_lab(directory) as (driver, template):
            cold = await cold_ms(driver, template, directory, n)
            ready = await ready_ms(driver, template, directory, n)
            idle = await idle_mib(driver, template, directory)
            out, into, pings = await channel(driver, template, directory)
    finally:
        shutil.rmtree(directory)
    return [
        row("clone_first_reply_ms", "ms", cold, 250.0),
        row("ready_first_reply_ms", "ms", ready, 45.0),
        row("vm_idle_pss_mib", "MiB", idle),
        row("channel_out_mb_s", "MB/s", out),
        row("channel_in_mb_s", "MB/s", into),
        row("channel_ping_us", "µs", pings),
    ]


if __name__ == "__main__":
    for measured in uvloop.run(rows()):
        print(
            f"{measured.name:24} {measured.p50:9.1f} {measured.p99:9.1f} {measured.unit:6} n={measured.n}",
            f"target={measured.target}",
        )
