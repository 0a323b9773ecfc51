"""One running clone: loading, pausing, ending."""

import asyncio
import contextlib
import os
import socket
from pathlib import Path
from typing import Any, Final

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.microvm.driver import Ended, Usage
from paddock.microvm.qemu.process import Process
from paddock.microvm.qemu.qmp import Qmp, QmpError
from paddock.microvm.template import STATE

IGNORE_SHARED: Final[dict[str, Any]] = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
"""Memory is not part of the saved state: it lies in the template's own file."""

_QUIT_WAIT_S: Final = 2.0


class QemuVm:
    """A clone of a template; made by `QemuDriver.start`."""

    def __init__(self, process: Process, qmp: Qmp, channel: socket.socket, template: Path) -> None:
        self._process = process
        self._qmp = qmp
        self._channel: socket.socket | None = channel
        self._taken = False
        # All at once: QEMU takes the commands in order, and a round trip to a starting VMM costs milliseconds.
        qmp.send("qmp_capabilities")
        self._steps = [qmp.send("migrate-set-capabilities", IGNORE_SHARED)]
        state = os.open(template / STATE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._steps.append(qmp.send("getfd", {"fdname": "state"}, fd=state))
        finally:
            os.close(state)
        self._running = qmp.event("RESUME")
        self._steps.append(qmp.send("migrate-incoming", {"uri": "fd:state"}))

    @property
    def pid(self) -> int:
        """Process id of the VMM."""
        return self._process.pid

    @property
    def channel(self) -> socket.socket:
        """The byte stream to the guest agent; whoever takes it closes it."""
        self._taken = True
        assert self._channel is not None
        return self._channel

    @property
    def exited(self) -> "asyncio.Future[Ended]":
        """Done when the VMM was reaped."""
        return self._process.exited

    async def loaded(self) -> None:
        """Wait until the guest runs; PaddockError BOOT_FAILED with the VMM's words when it does not."""
        try:
            for step in self._steps:
                await asyncio.shield(step)
            await asyncio.shield(self._running)
        except QmpError as error:
            with contextlib.suppress(PaddockError):
                ended = await self._process.wait(_QUIT_WAIT_S)
                raise PaddockError(ErrorKind.BOOT_FAILED, f"the clone did not load: {ended}") from None
            raise PaddockError(ErrorKind.BOOT_FAILED, f"the clone did not load: {error.info.message}") from None

    async def pause(self) -> None:
        """Stop the guest's processors; its clock stops too."""
        await self._qmp.send("stop")

    async def resume(self) -> None:
        """Let them go on; the guest's clock is behind until it is identified again."""
        await self._qmp.send("cont")

    async def destroy(self) -> Ended:
        """End the VM and prove it: answers when the process was reaped. Twice is the same as once."""
        if not self._process.kill():
            # Another uid's process and no cgroup: QEMU is asked; who started us kills it if it does not obey.
            self._qmp.send("quit")
        try:
            return await self._process.wait()
        finally:
            self._qmp.close()
            if not self._taken and self._channel is not None:
                self._channel.close()
                self._channel = None

    def usage(self) -> Usage:
        """What it took so far; what was seen last when it is gone."""
        return self._process.usage()
