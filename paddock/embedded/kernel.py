"""The guest kernel: Debian's cloud kernel, fetched by apt, as a plain ELF with the few modules a guest loads."""

import ctypes
import ctypes.util
import os
import re
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.embedded.build import Built, Progress, key, once, quiet, run, tool
from paddock.embedded.cpio import Entry, newc

WANTED = (
    "virtio_mmio",
    "virtio_console",
    "virtio_blk",
    "virtio_rng",
    "overlay",
    "erofs",
    "nft_chain_nat",
    "nft_redir",
    "nft_reject_ipv4",
)
"""Modules the guest agent loads; what they depend on comes before them."""

_RECIPE = "1"
_META = "linux-image-cloud-amd64"
_REMEDY = "apt-get update, or name a kernel with --kernel"
_SIGNATURE = b"~Module signature appended~\n"
_LZ4_LEGACY = 0x184C2102
_LZ4_BLOCK = 8 << 20


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel for `-kernel` and a cpio archive with its modules below `/m`, named in the order to load them."""

    release: str
    vmlinux: Built
    modules: Built


def build(cache: Path, progress: Progress = quiet) -> Kernel:
    """The newest cloud kernel this machine's apt knows: downloaded once a version, checked by apt's own digest."""
    package = _package()
    release, version = package.removeprefix("linux-image-"), _version(package)
    folder = cache / "kernel" / f"{version.replace(':', '_')}-{key(_RECIPE, package, version, *WANTED)}"

    def unpacked(step: str, inside: str, part: Path) -> Path:
        progress(step, None)
        deb = once(
            cache / "debs" / f"{package}_{key(version)}.deb", lambda partial: _download(package, version, partial)
        )
        run([tool("dpkg-deb", "dpkg"), "--extract", str(deb.path), str(part)])
        return part / inside.format(release=release)

    def make_vmlinux(partial: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="paddock-kernel-") as scratch:
            image = unpacked("fetching the guest kernel", "boot/vmlinuz-{release}", Path(scratch))
            partial.write_bytes(extract(image.read_bytes()))

    def make_modules(partial: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="paddock-kernel-") as scratch:
            tree = unpacked("packing the guest kernel's modules", "lib/modules/{release}/kernel", Path(scratch))
            partial.write_bytes(newc(_module_entries(tree)))

    return Kernel(release, once(folder / "vmlinux", make_vmlinux), once(folder / "modules.cpio", make_modules))


def extract(image: bytes) -> bytes:
    """The ELF inside a bzImage whose payload is LZ4 in its legacy frame, as Debian's is.

    Raises PaddockError for any other form. The setup header is described in the kernel's Documentation/x86/boot.rst.
    """
    try:
        sectors = (image[0x1F1] or 4) + 1
        offset, length = struct.unpack_from("<II", image, 0x248)
        (magic,) = struct.unpack_from("<I", image, sectors * 512 + offset)
    except (IndexError, struct.error):
        raise PaddockError(ErrorKind.SET_UP, "the kernel is not a bzImage", remedy=_REMEDY) from None
    if magic != _LZ4_LEGACY:
        raise PaddockError(ErrorKind.SET_UP, f"the kernel's payload has magic {magic:#x}, not LZ4", remedy=_REMEDY)
    start = sectors * 512 + offset + 4
    elf = b"".join(_lz4_blocks(memoryview(image)[start : start + length - 4]))
    if elf[:4] != b"\x7fELF":
        raise PaddockError(ErrorKind.SET_UP, "the kernel's payload is not an ELF", remedy=_REMEDY)
    return elf


def _lz4_blocks(payload: memoryview) -> Iterator[bytes]:
    # apt itself depends on this library, so it is there on any Debian without another package.
    name = ctypes.util.find_library("lz4") or "liblz4.so.1"
    try:
        decompress = ctypes.CDLL(name).LZ4_decompress_safe
    except OSError:
        raise PaddockError(ErrorKind.SET_UP, "liblz4 is not installed", remedy="apt-get install liblz4-1") from None
    room = ctypes.create_string_buffer(_LZ4_BLOCK)
    at = 0
    # The payload ends with the size of the ELF as u32, which is longer than what could still be a block.
    while at + 4 < len(payload):
        (size,) = struct.unpack_from("<I", payload, at)
        block = bytes(payload[at + 4 : at + 4 + size])
        if len(block) != size:
            return
        got = decompress(block, room, size, _LZ4_BLOCK)
        if got < 0:
            raise PaddockError(ErrorKind.SET_UP, "the kernel's payload is damaged", remedy=_REMEDY)
        yield room.raw[:got]
        at += 4 + size


def _package() -> str:
    depends = run([tool("apt-cache", "apt"), "depends", _META], remedy=_REMEDY)
    found = re.search(r"Depends: (linux-image-\S*cloud-amd64)", depends)
    if found is None:
        raise PaddockError(ErrorKind.SET_UP, f"apt does not know {_META}", remedy=_REMEDY)
    return found.group(1)


def _version(package: str) -> str:
    found = re.search(r"^Version: (\S+)$", run(["apt-cache", "show", "--no-all-versions", package]), re.MULTILINE)
    if found is None:
        raise PaddockError(ErrorKind.SET_UP, f"apt does not know {package}", remedy=_REMEDY)
    return found.group(1)


def _download(package: str, version: str, out: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="paddock-deb-", dir=out.parent) as scratch:
        argv = [tool("apt-get", "apt"), "download", f"{package}={version}"]
        if os.geteuid() == 0:
            argv[1:1] = ["-o", "APT::Sandbox::User=root"]  # its own user cannot write below our cache
        run(argv, cwd=Path(scratch), remedy=_REMEDY)
        (deb,) = Path(scratch).glob("*.deb")
        os.replace(deb, out)


def _module_entries(tree: Path) -> list[Entry]:
    index = {path.stem.replace("-", "_"): path for path in tree.rglob("*.ko")}
    entries = [Entry("m", 0o040755)]
    for number, name in enumerate(load_order(WANTED, {name: _depends(path) for name, path in index.items()})):
        content = index[name].read_bytes()
        entries.append(Entry(f"m/{number:02}-{name}.ko", 0o100644, unsigned(content)))
    return entries


def load_order(wanted: tuple[str, ...], depends: dict[str, list[str]]) -> list[str]:
    """The wanted modules and all they need, each behind what it depends on; raises PaddockError for an unknown one."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        if name not in depends:
            raise PaddockError(ErrorKind.SET_UP, f"the kernel has no module {name}", remedy=_REMEDY)
        for needed in depends[name]:
            visit(needed)
        order.append(name)

    for name in wanted:
        visit(name)
    return order


def _depends(path: Path) -> list[str]:
    found = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
    names = found.group(1).decode() if found else ""
    return [name for name in names.replace("-", "_").split(",") if name]


def unsigned(module: bytes) -> bytes:
    """A module without its appended signature: checking one is a public-key operation that each boot would pay for.

    The initrd is checked as a whole. Layout: signature, 12 bytes that end with its length (big endian), marker.
    """
    if not module.endswith(_SIGNATURE):
        return module
    trailer = len(module) - len(_SIGNATURE)
    (length,) = struct.unpack_from(">I", module, trailer - 4)
    return module[: trailer - 12 - length]
