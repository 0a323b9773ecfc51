"""What the VMM on this machine can do, asked of the driver that will run the sandboxes."""

from pathlib import Path

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.embedded import assets
from paddock.microvm.driver import Machine, Support
from paddock.microvm.qemu.driver import QemuDriver


def probe(cache: Path, *, kernel: Path | None = None, qemu: str | None = None) -> Support:
    """Runs the driver's own probe with what set-up made, or with another kernel or VMM.

    Raises PaddockError SET_UP when there is nothing to try it with.
    """
    known = assets.load(cache)
    if kernel is not None and not kernel.is_file():
        raise PaddockError(ErrorKind.SET_UP, f"{kernel} is no file", field="kernel")
    machine = Machine(kernel=kernel or Path(known.kernel), initrd=Path(known.initrd), qemu=qemu or known.qemu)
    return QemuDriver(machine).probe()
