"""A template: boot a guest, warm it, save it while it runs, so that a clone runs as soon as it is loaded."""

import asyncio
import os
import secrets
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.microvm import template
from paddock.microvm.channel.handle import ExecHandle
from paddock.microvm.channel.link import Link
from paddock.microvm.channel.messages import ExecRequest, How, Identity
from paddock.microvm.channel.transport import GuestTransport
from paddock.microvm.driver import Image, Machine
from paddock.microvm.jail import Jail
from paddock.microvm.qemu import argv
from paddock.microvm.qemu.launch import launch
from paddock.microvm.qemu.process import Process
from paddock.microvm.qemu.qmp import Qmp
from paddock.microvm.qemu.vm import IGNORE_SHARED

_BOOT_S: Final = 60.0
_WARM_S: Final = 60.0
_SAVE_S: Final = 30.0
_SETTLE_S: Final = 0.3
_WARM: Final = (
    ("/bin/true",),
    ("/bin/echo", "x"),
    ("/bin/sh", "-c", "true"),
    ("python3", "-c", "import json"),
)
"""What every clone then finds in its page cache and already translated."""

_PATH: Final = ("PATH", "/usr/local/bin:/usr/bin:/bin")


class _Nobody:
    """A template is no sandbox: nothing gets out of it."""

    def connect(self, transport: GuestTransport, address: str, port: int) -> None:
        transport.refuse("a template")

    async def dns(self, query: bytes, tcp: bool) -> bytes | None:
        return None

    def event(self, kind: int, payload: bytes) -> None:
        pass


async def boot_and_save(
    machine: Machine, image: Image, hardware: argv.Hardware, kernel_words: str, place: Path, key: str
) -> None:
    """Boot, warm, and save the template `key` at `place`; PaddockError BOOT_FAILED with the console's last words."""
    work = Path(tempfile.mkdtemp(prefix=".boot-", dir=place.parent))
    memory = template.new_memory(hardware.memory_mib << 20)
    fds = [memory]
    process: Process | None = None
    try:
        fds += [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in (image.path, machine.kernel, machine.initrd)]
        words = argv.template(machine.qemu, hardware, kernel_words)
        process, qmp, channel = launch(words, fds, work / "console.log", Jail(work))
        identity = Identity("template", secrets.token_hex(16), time.time_ns(), secrets.token_bytes(32))
        link = await Link.open(channel, identity=identity, guest=_Nobody())
        try:
            await asyncio.wait_for(_warm(link), _BOOT_S + _WARM_S)
        except (TimeoutError, PaddockError) as error:
            link.close()
            process.kill()
            ended = await process.wait()
            raise PaddockError(
                ErrorKind.BOOT_FAILED, f"the template did not boot: {error or ended}\n{ended.words}"
            ) from error
        state = work / "state"
        await asyncio.wait_for(_save(qmp, state), _SAVE_S)
        qmp.close()
        link.close()
        process.kill()
        await process.wait()
        template.save(place, key, memory, state.rename)
    finally:
        if process is not None and not process.exited.done():
            process.kill()
            await process.wait()
        for fd in fds:
            os.close(fd)
        shutil.rmtree(work, ignore_errors=True)


async def _warm(link: Link) -> None:
    await asyncio.wait_for(link.hello(), _BOOT_S)
    for words in _WARM:
        said = bytearray()

        def keep(chan: int, data: memoryview, said: bytearray = said) -> None:
            said.extend(data)

        handle: ExecHandle = link.exec(ExecRequest(words, (_PATH,), cwd="/"), keep)
        status = await handle.exit()
        handle.forget()
        missing = status.how is How.NEVER_STARTED and words[0] == "python3"
        if not missing and (status.how is not How.EXITED or status.value):
            raise PaddockError(ErrorKind.BOOT_FAILED, f"{words[0]} failed in the new guest: {status} {bytes(said)!r}")
    await link.ping()
    # The guest's kernel still frees what these programs held; a clone should not have to.
    await asyncio.sleep(_SETTLE_S)
    await link.ping()


async def _save(qmp: Qmp, state: Path) -> None:
    await qmp.send("qmp_capabilities")
    await qmp.send("migrate-set-capabilities", IGNORE_SHARED)
    fd = os.open(state, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        await qmp.send("getfd", {"fdname": "state"}, fd=fd)
    finally:
        os.close(fd)
    await qmp.send("migrate", {"uri": "fd:state"})
    while True:
        status = (await qmp.send("query-migrate")).get("status")
        if status == "completed":
            return
        if status in ("failed", "cancelled"):
            raise PaddockError(ErrorKind.BOOT_FAILED, f"the template could not be saved: migration {status}")
        await asyncio.sleep(0.005)
