"""Templates in use on a host: built or found by a child of the keeper, then held in memory that no clone can write."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from paddock.contracts.base import Wire
from paddock.contracts.errors import ErrorInfo, ErrorKind, PaddockError
from paddock.contracts.spec import Shape
from paddock.embedded import assets
from paddock.host.config import HostConfig
from paddock.host.fork import die_with_parent, fork
from paddock.microvm.driver import Image, Machine, Support, Template
from paddock.microvm.qemu.driver import QemuDriver
from paddock.microvm.template import open_memory

Ready = Callable[["Loaded | None", ErrorInfo | None], None]
Key = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A template, what its VMM can do here, and the sealed memory that its clones map privately."""

    template: Template
    support: Support
    memory_fd: int


class Built(Wire):
    """What the building child says: the template's key and the VMM's support, or why there is none."""

    key: str = ""
    accel: str = ""
    version: str = ""
    why: str = ""
    error: ErrorInfo | None = None


@dataclass
class _Job:
    image: Image
    shape: Shape
    answer: Path
    waiting: list[Ready]


class Templates:
    """Templates by image and shape; `get` calls back once, at once when the template is loaded."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        found = assets.load(Path(config.cache))
        self.machine = Machine(
            kernel=Path(config.kernel or found.kernel), initrd=Path(found.initrd), qemu=config.qemu or found.qemu
        )
        self._images = {
            name: Image(name=name, path=Path(image.path), digest=image.digest) for name, image in found.images.items()
        }
        self._loaded: dict[Key, Loaded] = {}
        self._building: dict[int, _Job] = {}

    @property
    def keys(self) -> frozenset[str]:
        """Keys of the templates that are loaded."""
        return frozenset(loaded.template.key for loaded in self._loaded.values())

    def get(self, name: str, shape: Shape, ready: Ready) -> None:
        """The template of an image (by name or digest) and a shape; built first when it is not there."""
        image = self._images.get(name) or next((i for i in self._images.values() if i.digest == name), None)
        if image is None:
            known = ", ".join(sorted(self._images))
            message = f"no image {name!r} on this host; known: {known}"
            ready(None, ErrorInfo(kind=ErrorKind.UNKNOWN_IMAGE, message=message, field="image"))
            return
        if loaded := self._loaded.get(_key(image, shape)):
            ready(loaded, None)
            return
        for job in self._building.values():
            if _key(job.image, job.shape) == _key(image, shape):
                job.waiting.append(ready)
                return
        self._build(image, shape, ready)

    def died(self, pid: int) -> bool:
        """Whether `pid` was building a template; whoever waits for it is answered."""
        if (job := self._building.pop(pid, None)) is None:
            return False
        loaded, error = None, None
        try:
            built = Built.model_validate_json(job.answer.read_bytes())
            error = built.error
            if error is None:
                shape = job.shape
                directory = self._directory / built.key
                template = Template(built.key, directory, shape.vcpu, shape.memory_mib, job.image)
                support = Support(works=True, accel=built.accel, version=built.version, why=built.why)
                loaded = self._loaded[_key(job.image, shape)] = Loaded(template, support, open_memory(template))
        except PaddockError as wrong:
            error = wrong.info
        except (OSError, ValueError) as wrong:
            message = f"the template of image {job.image.name!r} could not be built: {wrong}"
            remedy = f"read {self._config.paths.logs / 'template.log'}; `paddock doctor` checks QEMU and the assets"
            error = ErrorInfo(kind=ErrorKind.BOOT_FAILED, message=message, remedy=remedy)
        job.answer.unlink(missing_ok=True)
        for ready in job.waiting:
            ready(loaded, error)
        return True

    @property
    def _directory(self) -> Path:
        return Path(self._config.cache) / "templates"

    def _build(self, image: Image, shape: Shape, ready: Ready) -> None:
        parent, machine, directory = os.getpid(), self.machine, self._directory
        answer = self._config.paths.logs / f"template-{image.digest[7:19]}-{shape.vcpu}-{shape.memory_mib}.json"
        answer.unlink(missing_ok=True)

        def body() -> None:
            die_with_parent(parent)
            answer.write_text(asyncio.run(_build(machine, image, shape, directory)).model_dump_json())

        pid = fork("paddock-templ", body, [], self._config.paths.logs / "template.log")
        self._building[pid] = _Job(image, shape, answer, [ready])


async def _build(machine: Machine, image: Image, shape: Shape, directory: Path) -> Built:
    driver = QemuDriver(machine)
    try:
        template = await driver.build_template(image, shape, directory)
    except PaddockError as wrong:
        return Built(error=wrong.info)
    support = driver.probe()
    return Built(key=template.key, accel=support.accel, version=support.version, why=support.why)


def _key(image: Image, shape: Shape) -> Key:
    return image.digest, shape.vcpu, shape.memory_mib, shape.disk_mib
