"""QEMU as a driver: a template booted once, clones that map its memory privately and load its device state."""

import asyncio
import functools
import os
from pathlib import Path
from typing import Final

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.spec import Shape
from paddock.microvm import probe, template, tsc
from paddock.microvm.driver import Image, Machine, Place, Support, Template
from paddock.microvm.jail import Jail
from paddock.microvm.qemu import argv
from paddock.microvm.qemu.boot import boot_and_save
from paddock.microvm.qemu.launch import launch
from paddock.microvm.qemu.vm import QemuVm

_CLONE_FILE_BYTES: Final = 1 << 20
"""A clone writes nothing but its log."""


class QemuDriver:
    """QEMU on this machine, with one kernel and one initrd."""

    name = "qemu"

    def __init__(self, machine: Machine, support: Support | None = None) -> None:
        self._machine = machine
        if support is not None:  # probed already, by whoever built the template
            self.__dict__["_support"] = support
        self._memory: dict[str, int] = {}

    def probe(self) -> Support:
        """What works here: KVM where a guest proves it, else TCG, and why; at most 2 s, remembered."""
        return self._support

    @functools.cached_property
    def _support(self) -> Support:
        return probe.probe(self._machine)

    async def build_template(self, image: Image, shape: Shape, directory: Path) -> Template:
        """The template of `image` and `shape` below `directory`: found there, or booted (seconds) and saved."""
        support = self.probe()
        if not support.works:
            raise PaddockError(ErrorKind.SET_UP, f"QEMU does not work here: {support.why}", remedy="run `make setup`")
        hardware = argv.Hardware(support.accel, shape.vcpu, shape.memory_mib)
        key = template.make_key(
            image=image.digest,
            kernel=_digest(self._machine.kernel),
            initrd=_digest(self._machine.initrd),
            vmm=support.version,
            processor=probe.processor(),
            command=argv.key_words(hardware, shape.disk_mib),
        )
        place = directory / key
        while True:
            with template.building(place) as ours:
                if template.find(place, key):
                    return Template(key, place, shape.vcpu, shape.memory_mib, image)
                if ours:
                    words = argv.kernel_words(hardware, shape.disk_mib, tsc.measure_khz())
                    await boot_and_save(self._machine, image, hardware, words, place, key)
                    continue
            await asyncio.sleep(0.1)

    async def start(self, template: Template, place: Place) -> QemuVm:
        """A clone: spawned, its state on the way; returns before the guest runs, the channel may be written at once."""
        hardware = argv.Hardware(self.probe().accel, template.vcpu, template.memory_mib)
        place.directory.mkdir(parents=True, exist_ok=True)
        memory = place.memory_fd if place.memory_fd is not None else self._open_memory(template)
        jail = Jail(
            directory=place.directory,
            uid=place.uid,
            gid=place.gid,
            cgroup_procs=place.cgroup_procs,
            file_bytes=_CLONE_FILE_BYTES,
        )
        image = os.open(template.image.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            words = argv.clone(self._machine.qemu, hardware)
            process, qmp, channel = launch(words, (memory, image), place.directory / "vmm.log", jail)
        finally:
            os.close(image)
        return QemuVm(process, qmp, channel, template.directory)

    def _open_memory(self, of: Template) -> int:
        if of.key not in self._memory:
            self._memory[of.key] = template.open_memory(of)
        return self._memory[of.key]

    def close(self) -> None:
        """Give up the memory of templates that this driver opened."""
        while self._memory:
            os.close(self._memory.popitem()[1])


@functools.lru_cache(maxsize=16)
def _file_digest(path: Path, _changed: tuple[int, int]) -> str:
    return template.file_digest(path)


def _digest(path: Path) -> str:
    status = path.stat()
    return _file_digest(path, (status.st_mtime_ns, status.st_size))
