"""Kernel: the ELF inside a bzImage, the order of modules, and their signatures."""

import ctypes
import ctypes.util
import struct

import pytest

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.embedded import kernel

BLOCK = 8 << 20


def compressed(block: bytes) -> bytes:
    library = ctypes.CDLL(ctypes.util.find_library("lz4") or "liblz4.so.1")
    room = ctypes.create_string_buffer(library.LZ4_compressBound(len(block)))
    size = library.LZ4_compress_default(block, room, len(block), len(room))
    return room.raw[:size]


def image_of(elf: bytes, *, magic: int = 0x184C2102, cut: int = 0) -> bytes:
    """A bzImage with two sectors of set-up and 100 bytes of protected-mode code before its payload."""
    payload = struct.pack("<I", magic)
    for at in range(0, len(elf), BLOCK):
        block = compressed(elf[at : at + BLOCK])
        payload += struct.pack("<I", len(block)) + block
    payload = payload[: len(payload) - cut] + struct.pack("<I", len(elf))
    head = bytearray(3 * 512)
    head[0x1F1] = 2
    struct.pack_into("<II", head, 0x248, 100, len(payload))
    return bytes(head) + bytes(100) + payload + b"\0" * 64


@pytest.mark.parametrize("size", [5, 1000, BLOCK, 2 * BLOCK + 17])
def test_the_elf_comes_out_whole(size: int) -> None:
    elf = (b"\x7fELF" + bytes(range(256)) * (size // 256 + 1))[:size]
    assert kernel.extract(image_of(elf)) == elf


@pytest.mark.parametrize(
    "image",
    [b"", b"MZ" * 10, image_of(b"\x7fELF", magic=0x8B1F), image_of(b"not an ELF"), image_of(b"\x7fELF" * 50, cut=9)],
    ids=["empty", "short", "gzip", "no ELF", "damaged"],
)
def test_what_is_no_such_kernel_is_refused(image: bytes) -> None:
    with pytest.raises(PaddockError) as caught:
        kernel.extract(image)
    assert caught.value.kind is ErrorKind.SET_UP


def test_modules_come_behind_what_they_need() -> None:
    depends = {"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": [], "unused": []}
    order = kernel.load_order(("a", "c"), depends)
    assert sorted(order) == ["a", "b", "c", "d"]
    assert all(order.index(needed) < order.index(name) for name in order for needed in depends[name])


def test_a_kernel_without_a_wanted_module_is_refused() -> None:
    with pytest.raises(PaddockError, match="no module erofs"):
        kernel.load_order(("erofs",), {})


def test_a_signature_is_taken_off_and_nothing_else() -> None:
    module, signature = b"\x7fELF module", b"s" * 300
    info = bytes(8) + struct.pack(">I", len(signature))
    assert kernel.unsigned(module + signature + info + b"~Module signature appended~\n") == module
    assert kernel.unsigned(module) == module
