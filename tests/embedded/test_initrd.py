"""Initrd: an archive that the kernel's own format description agrees with."""

import stat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from paddock.embedded import initrd
from paddock.embedded.build import Built, once
from paddock.embedded.cpio import Entry, newc


def read(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Members of joined newc archives, read as the kernel's buffer-format.rst says."""
    members: dict[str, tuple[int, bytes]] = {}
    at = 0
    while at < len(archive):
        if archive[at] == 0:
            at += 1
            continue
        assert archive[at : at + 6] == b"070701"
        assert at % 4 == 0
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        assert archive[at + 109 + name_size] == 0
        at += 110 + name_size
        at += -at % 4
        if name != "TRAILER!!!":
            members[name] = (mode, archive[at : at + size])
        at += size
        at += -at % 4
    return members


def built(path: Path, content: bytes) -> Built:
    return once(path, lambda partial: partial.write_bytes(content) and None)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,30}", fullmatch=True), st.binary(max_size=50), max_size=8))
def test_every_member_is_found_again(files: dict[str, bytes]) -> None:
    archive = newc(Entry(name, 0o100644, content) for name, content in files.items())
    assert read(archive) == {name: (0o100644, content) for name, content in files.items()}


def test_the_agent_is_init_and_modules_keep_their_order(tmp_path: Path) -> None:
    modules = built(tmp_path / "m", newc([Entry("m", 0o040755), Entry("m/00-a.ko", 0o100644, b"A" * 5)]))
    agent = built(tmp_path / "agent", b"\x7fELF agent")
    packed = initrd.build(tmp_path, modules, agent)
    members = read(packed.path.read_bytes())
    mode, content = members["init"]
    assert content == b"\x7fELF agent"
    assert stat.S_ISREG(mode)
    assert mode & 0o111
    assert members["m/00-a.ko"] == (0o100644, b"A" * 5)
    assert stat.S_ISCHR(members["dev/console"][0])


def test_equal_parts_give_the_same_archive_and_other_parts_another(tmp_path: Path) -> None:
    modules, agent = built(tmp_path / "m", newc([])), built(tmp_path / "a", b"one")
    first = initrd.build(tmp_path / "x", modules, agent)
    assert initrd.build(tmp_path / "y", modules, agent).digest == first.digest
    assert initrd.build(tmp_path / "x", modules, built(tmp_path / "b", b"two")).path != first.path
