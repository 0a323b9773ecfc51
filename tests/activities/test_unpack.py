"""A guest's archive of outputs is hostile: only plain files come out, below their root, counted and bounded."""

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activities import unpack
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.report import OutputFile
from paddock.host.objects import ObjectStore, ObjectWriter

SB = "sb-0123456789abcdef0123"
LIMIT = 1 << 20


async def chunks(data: bytes, size: int = 1 << 14) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def entry(name: str = "file", data: bytes = b"x", **fields: object) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    header = member.tobuf(tarfile.GNU_FORMAT)
    return header + data + bytes(-len(data) % 512)


def header_with_size(size: bytes) -> bytes:
    """A header whose size field is exactly these 12 bytes, with the right checksum."""
    raw = bytearray(entry(data=b"")[:512])
    raw[124:136] = size
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


END = bytes(1024)


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "objects")


async def unpacked(objects: ObjectStore, data: bytes, limit: int = LIMIT) -> list[OutputFile]:
    return await asyncio.wait_for(unpack.to_objects(chunks(data), objects, SB, limit), 20)


async def refused(objects: ObjectStore, data: bytes, limit: int = LIMIT) -> ErrorKind:
    with pytest.raises(PaddockError) as caught:
        await unpacked(objects, data, limit)
    return caught.value.kind


async def test_files_come_out_by_digest_with_their_names(objects: ObjectStore) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, text in (("a.txt", b"one"), ("./sub//b.txt", b"two"), ("é" * 60 + "/c", b"")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    files = await unpacked(objects, made.getvalue())
    assert [file.path for file in files] == ["a.txt", "sub/b.txt", "é" * 60 + "/c"]
    assert [objects.path(SB, file.digest).read_bytes() for file in files] == [b"one", b"two", b""]
    assert [file.bytes for file in files] == [3, 3, 0]


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"Z"],
)
async def test_nothing_but_plain_files_comes_out(kind: bytes, objects: ObjectStore) -> None:
    special = entry("special", b"", type=kind, linkname="/etc/passwd")
    files = await unpacked(objects, special + entry("plain", b"kept") + END)
    assert [file.path for file in files if file.bytes] == ["plain"]
    assert all(objects.path(SB, file.digest).read_bytes() in (b"kept", b"") for file in files)


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../up", "a/..", "..", "x" * 5000])
async def test_a_name_that_leaves_the_tree_is_refused(name: str, objects: ObjectStore) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    assert await refused(objects, made.getvalue()) is ErrorKind.GUEST_VIOLATION


async def test_more_than_the_limit_is_refused_however_it_is_claimed(objects: ObjectStore) -> None:
    assert await refused(objects, entry(data=bytes(600)) * 2 + END, 1000) is ErrorKind.OUTPUT_LIMIT
    assert await refused(objects, header_with_size(b"77777777777\0") + END) is ErrorKind.OUTPUT_LIMIT
    assert await refused(objects, header_with_size(b"\x80" + b"\x7f" * 11) + END) is ErrorKind.OUTPUT_LIMIT


async def test_a_stream_without_end_is_cut_off(objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "HEADERS_BYTES", 1 << 12)
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 512
            yield bytes(512)

    with pytest.raises(PaddockError) as caught:
        await asyncio.wait_for(unpack.to_objects(endless(), objects, SB, 1000), 20)
    assert caught.value.kind is ErrorKind.OUTPUT_LIMIT
    assert given <= 1000 + (1 << 12) + 512


@pytest.mark.parametrize("many", [entry("f", b""), entry("d", b"", type=tarfile.DIRTYPE)], ids=["files", "others"])
async def test_too_many_entries_are_refused(many: bytes, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "MAX_FILES", 5)
    assert len(await unpacked(objects, entry("f", b"") * 5 + END)) == 5
    assert await refused(objects, many * 60 + END) is ErrorKind.OUTPUT_LIMIT


@pytest.mark.parametrize(
    "data",
    [
        header_with_size(b"\xff" * 12) + END,  # minus one: a reader that believes it goes backwards, for ever
        header_with_size(b"\xff" * 10 + b"\xfe\x00") * 2 + END,  # minus 512
        header_with_size(b"\x80" + bytes(3) + b"\xff" * 8) + END,  # more than any file
        entry(data=b"cut short")[:-600],
        entry(data=bytes(4096))[:2000],
        b"not a tar at all" * 100,
        entry("././@LongLink", b"n" * 100, type=tarfile.GNUTYPE_LONGNAME) * 5000 + entry() + END,  # nested
        entry("p", b"11 size=-9\n", type=tarfile.XHDTYPE) + entry() + END,
        entry("p", b"9 size=x\n", type=tarfile.XHDTYPE) + entry() + END,
        entry("p", b"0 a=b\n", type=tarfile.XHDTYPE) + entry() + END,
        entry("p", b"99999999999999999999 a=b\n", type=tarfile.XHDTYPE) + entry() + END,
        entry("p", b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n", type=tarfile.XHDTYPE) + entry() + END,
    ],
    ids=range(12),
)
async def test_an_archive_that_no_honest_guest_writes_ends_in_a_refusal_or_in_plain_files(
    data: bytes, objects: ObjectStore
) -> None:
    try:
        files = await unpacked(objects, data)
    except PaddockError as wrong:
        assert wrong.kind in (ErrorKind.GUEST_VIOLATION, ErrorKind.OUTPUT_LIMIT)
    else:
        assert sum(file.bytes for file in files) <= LIMIT


async def test_a_header_that_is_itself_huge_is_refused_before_it_is_in_memory(objects: ObjectStore) -> None:
    huge = entry("p", bytes(unpack.MAX_EXTENSION + 512), type=tarfile.XHDTYPE)
    assert await refused(objects, huge + entry() + END, 16 << 20) is ErrorKind.GUEST_VIOLATION


async def test_a_refused_archive_leaves_no_half_written_object(objects: ObjectStore, tmp_path: Path) -> None:
    await refused(objects, entry(data=bytes(4096))[:2000])
    assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == []
    assert objects.used_bytes == 0


async def test_the_loop_goes_on_while_a_large_archive_is_taken_apart(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats, before = 0, []

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0)
            beats += 1

    def writer(sandbox_id: str) -> ObjectWriter:
        before.append(beats)
        return ObjectWriter(objects, sandbox_id, None, None)

    monkeypatch.setattr(objects, "writer", writer)
    beating = asyncio.ensure_future(beat())
    await unpacked(objects, entry("large", bytes(16 << 20)) + END, 1 << 30)
    beating.cancel()
    assert beats - before[0] >= (16 << 20) // unpack.CHUNK, "an activity that blocks the loop misses its heartbeats"


BLOCKS: st.SearchStrategy[bytes] = st.one_of(
    st.binary(max_size=700),
    st.builds(header_with_size, st.binary(min_size=12, max_size=12)),
    st.builds(
        lambda name, data, kind: entry(name, data, type=kind),
        st.sampled_from(("a", "../b", "/c", "d/e")),
        st.binary(max_size=600),
        st.sampled_from([bytes([n]) for n in b"01234567LKSxgXZ\0"]),
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(BLOCKS, max_size=6).map(b"".join))
def test_any_bytes_end_in_plain_files_or_in_a_refusal(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    store = ObjectStore(tmp_path_factory.mktemp("objects"))
    run: Callable[[], list[OutputFile]] = lambda: asyncio.run(unpacked(store, data + END, 4096))  # noqa: E731
    try:
        files = run()
    except PaddockError as wrong:
        assert wrong.kind in (ErrorKind.GUEST_VIOLATION, ErrorKind.OUTPUT_LIMIT)
    else:
        assert all(not file.path.startswith("/") and ".." not in file.path.split("/") for file in files)
        assert sum(file.bytes for file in files) <= 4096
