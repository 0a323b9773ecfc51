"""`paddock setup`: everything this machine needs, made once, kept in the user's cache, looked at again each time."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from rich.console import Console

from paddock.contracts.base import Strict
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.embedded import assets, guest, image, initrd, kernel, packages, temporal_binary
from paddock.embedded.build import Built, file_digest, key, once
from paddock.embedded.cpio import newc
from paddock.embedded.progress import Done, Steps
from paddock.embedded.resources import GUEST, TEMPORAL, resource

STAMP: Final = "setup.json"
OPTIONS: Final = "options.json"
QEMU: Final = "qemu-system-x86_64"


class Options(Strict):
    """What a person decided: a kernel with its drivers built in, a VMM, a Temporal program. Kept for the next time."""

    kernel: Path | None = None
    qemu: Path | None = None
    temporal: Path | None = None


class File(Strict):
    """One file as it was when set-up ended: any write to it changes its times."""

    path: str
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> "File":
        seen = path.stat()
        return cls(path=str(path), size=seen.st_size, modified_ns=seen.st_mtime_ns, changed_ns=seen.st_ctime_ns)


class Stamp(Strict):
    """That set-up was done: from which sources and options, and the files that came out."""

    inputs: str
    files: tuple[File, ...]


def run(
    console: Console,
    agree: Callable[[str], bool],
    options: Options | None = None,
    *,
    verify: bool = False,
    cache: Path | None = None,
) -> list[Done]:
    """Does what is missing and answers each step with its seconds. Whole and unchanged, it takes well under a second.

    `options` None: those of the last time. `verify` reads every file again. Raises PaddockError SET_UP with what to do;
    steps that were done stay done.
    """
    cache = cache or assets.cache_dir()
    options = remembered(cache) if options is None else options
    if not verify and unchanged(cache, options):
        return []
    steps = Steps(console)
    with _alone(cache, console):
        if verify or not unchanged(cache, options):
            _all(cache, steps, agree, options)
    return steps.done


def remembered(cache: Path) -> Options:
    """What a person decided the last time; nothing where nobody did."""
    try:
        return Options.model_validate_json((cache / OPTIONS).read_bytes())
    except (OSError, ValidationError):
        return Options()


def unchanged(cache: Path, options: Options) -> bool:
    """Whether set-up was done from these sources, and every file that came out of it is untouched."""
    try:
        stamp = Stamp.model_validate_json((cache / STAMP).read_bytes())
        if any(File.of(Path(file.path)) != file for file in stamp.files) or stamp.inputs != _inputs(options):
            return False
        assets.load(cache)
        temporal_binary.load(cache)
    except (OSError, ValidationError, PaddockError):
        return False
    return not _lacking(packages.PACKAGES, options)


def _all(cache: Path, steps: Steps, agree: Callable[[str], bool], options: Options) -> None:
    (cache / STAMP).unlink(missing_ok=True)
    # Before anything is built from them: a source that changes meanwhile makes the next run look again.
    inputs = _inputs(options)
    _write(cache / OPTIONS, options)
    wanted = packages.PACKAGES if packages.power() is packages.Power.ROOT else packages.PACKAGES + packages.WITHOUT_ROOT
    with steps.step("system packages") as step:
        if lacking := _lacking(wanted, options):
            packages.install(lacking, step.say, agree=agree, log=cache / "log" / "apt.log")
            step.note(", ".join(package.name for package in lacking))
        packages.refresh_lists(step.say, log=cache / "log" / "apt.log")
    qemu = _qemu(options)
    with steps.step("guest kernel") as step:
        vmlinux, modules = _kernel(cache, step.say, options)
        step.note(vmlinux.path.parent.name)
    with steps.step("guest agent") as step:
        agent = guest.build(cache, resource(GUEST), step.say)
    with steps.step("initrd") as step:
        packed = initrd.build(cache, modules, agent, step.say)
    with steps.step("base image") as step:
        base = image.build_base(cache, step.say)
        step.note(f"{Path(base.path).stat().st_size >> 20} MiB")
    assets.save(
        cache,
        assets.Assets(
            kernel=str(vmlinux.path),
            kernel_digest=vmlinux.digest,
            initrd=str(packed.path),
            initrd_digest=packed.digest,
            agent_digest=agent.digest,
            qemu=str(qemu),
            images={base.name: base},
        ),
    )
    with steps.step("Temporal server") as step:
        server = temporal_binary.provide(cache, step.say, named=options.temporal)
        step.note(f"{server.server}, {server.origin}")
    with steps.step("check by digest") as step:
        step.say("reading everything once")
        assets.load(cache, verify=True)
    files = (vmlinux.path, packed.path, Path(base.path), Path(server.path), qemu)
    _write(cache / STAMP, Stamp(inputs=inputs, files=tuple(File.of(path) for path in files)))


def _lacking(wanted: tuple[packages.SystemPackage, ...], options: Options) -> tuple[packages.SystemPackage, ...]:
    return tuple(p for p in packages.missing(wanted) if not (options.qemu and QEMU in p.programs))


def _qemu(options: Options) -> Path:
    found = str(options.qemu.absolute()) if options.qemu else packages.find(QEMU)
    if found is None or not os.access(found, os.X_OK):
        raise PaddockError(ErrorKind.SET_UP, f"{found or QEMU} cannot be run", field="qemu")
    return Path(found)


def _kernel(cache: Path, say: Callable[[str, float | None], None], options: Options) -> tuple[Built, Built]:
    """Debian's kernel, or the one that was named: that must have its drivers built in, so it gets no modules."""
    if options.kernel is None:
        built = kernel.build(cache, say)
        return built.vmlinux, built.modules
    if not options.kernel.is_file():
        raise PaddockError(ErrorKind.SET_UP, f"{options.kernel} is no file", field="kernel")
    folder = cache / "kernel" / f"named-{key(file_digest(options.kernel))}"
    named = options.kernel
    vmlinux = once(folder / "vmlinux", lambda partial: _copy(named, partial))
    return vmlinux, once(folder / "modules.cpio", _no_modules)


def _copy(source: Path, partial: Path) -> None:
    partial.write_bytes(source.read_bytes())


def _no_modules(partial: Path) -> None:
    partial.write_bytes(newc([]))


def _inputs(options: Options) -> str:
    """What set-up depends on: this package's own sources, the guest agent's, the server's module, the options."""
    total = hashlib.sha256(options.model_dump_json().encode())
    own = sorted(Path(__file__).parent.glob("*.py"))
    module = resource(TEMPORAL)
    for path in (*own, *sorted(resource(GUEST).glob("*")), module / "go.mod", module / "go.sum"):
        if path.is_file() and not path.name.endswith("_test.go"):
            total.update(f"{path.name}:{file_digest(path)}\n".encode())
    return total.hexdigest()


def _write(path: Path, model: Strict) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(model.model_dump_json(indent=2) + "\n")
    partial.replace(path)


@contextmanager
def _alone(cache: Path, console: Console) -> Iterator[None]:
    """One set-up at a time in one cache: a second one waits for the first and then finds all done."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "setup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            console.print("  waiting for another set-up in the same cache", highlight=False)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
