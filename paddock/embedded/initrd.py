"""The initrd: the guest agent as `/init` and the kernel's modules in the order to load them."""

from pathlib import Path

from paddock.embedded.build import Built, Progress, key, once, quiet
from paddock.embedded.cpio import Entry, newc

_RECIPE = "1"
_FOLDERS = ("dev", "proc", "sys", "ro", "rw", "newroot")


def build(cache: Path, modules: Built, agent: Built, progress: Progress = quiet) -> Built:
    """An uncompressed archive: the kernel's modules as they were packed (`kernel.build`), then the agent."""

    def make(partial: Path) -> None:
        progress("packing the initrd", None)
        entries = [Entry(folder, 0o040755) for folder in _FOLDERS]
        entries += [Entry("dev/console", 0o020600, device=(5, 1)), Entry("init", 0o100755, agent.path.read_bytes())]
        partial.write_bytes(modules.path.read_bytes() + newc(entries))

    return once(cache / "initrd" / f"initrd-{key(_RECIPE, modules.digest, agent.digest)}.cpio", make)
