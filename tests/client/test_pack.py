"""Inputs are packed the same way everywhere, and nothing leads out of its place."""

import hashlib
import os
import socket
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.client.errors import BadSpec
from paddock.client.pack import packed


def names(inputs: dict[str, Path]) -> list[str]:
    with packed(inputs) as tar, tarfile.open(fileobj=tar.file) as archive:
        return archive.getnames()


def digest(inputs: dict[str, Path]) -> str:
    with packed(inputs) as tar:
        data = tar.file.read()
        assert tar.ref.bytes == len(data)
        assert tar.ref.digest == "sha256:" + hashlib.sha256(data).hexdigest()
        return tar.ref.digest


def tree(root: Path) -> Path:
    (root / "b" / "deep").mkdir(parents=True)
    (root / "a.txt").write_text("a")
    (root / "b" / "deep" / "run.sh").write_text("#!/bin/sh\n")
    (root / "b" / "deep" / "run.sh").chmod(0o711)
    (root / "b" / "link").symlink_to("deep/run.sh")
    return root


def test_the_same_files_give_the_same_digest_whatever_their_times_owners_and_umask(tmp_path: Path) -> None:
    first, second = tree(tmp_path / "1"), tree(tmp_path / "2")
    os.utime(second / "a.txt", (1, 1))
    (second / "a.txt").chmod(0o600)
    assert digest({"repo": first}) == digest({"repo": second})
    (second / "a.txt").write_text("b")
    assert digest({"repo": first}) != digest({"repo": second})


def test_a_tree_keeps_its_names_links_and_executable_bits(tmp_path: Path) -> None:
    with packed({"repo": tree(tmp_path / "t")}) as tar, tarfile.open(fileobj=tar.file) as archive:
        found = {member.name: member for member in archive}
    assert list(found) == ["repo", "repo/a.txt", "repo/b", "repo/b/deep", "repo/b/deep/run.sh", "repo/b/link"]
    assert found["repo/b/deep/run.sh"].mode == 0o755
    assert found["repo/a.txt"].mode == 0o644
    assert found["repo/b/link"].linkname == "deep/run.sh"
    assert {(m.uid, m.gid, m.mtime, m.uname) for m in found.values()} == {(0, 0, 0, "")}


def test_a_dot_is_the_working_directory_itself_and_a_deep_place_gets_its_parents(tmp_path: Path) -> None:
    tree(tmp_path / "t")
    assert names({".": tmp_path / "t"})[0] == "a.txt"
    assert names({"x/y/z.txt": tmp_path / "t" / "a.txt"}) == ["x", "x/y", "x/y/z.txt"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "deep/../../.."])
def test_a_link_that_leads_out_is_refused_by_name(tmp_path: Path, target: str) -> None:
    root = tree(tmp_path / "t")
    (root / "b" / "bad").symlink_to(target)
    with pytest.raises(BadSpec, match="leads out") as wrong:
        names({"repo": root})
    assert wrong.value.info.field.endswith("b/bad")


def test_a_link_up_and_down_again_inside_is_fine(tmp_path: Path) -> None:
    root = tree(tmp_path / "t")
    (root / "b" / "up").symlink_to("../a.txt")
    assert "repo/b/up" in names({"repo": root})


def test_pipes_and_sockets_do_not_travel(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    os.mkfifo(tmp_path / "p" / "fifo")
    with pytest.raises(BadSpec, match="pipe or socket"):
        names({"p": tmp_path / "p"})
    (tmp_path / "s").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s" / "socket"))
        with pytest.raises(BadSpec, match="pipe or socket"):
            names({"s": tmp_path / "s"})


@pytest.mark.parametrize("name", ["/etc", "../x", "a/../../x", ""])
def test_a_place_outside_of_work_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadSpec, match="relative to /work"):
        names({name: tmp_path})


def test_what_is_missing_or_unreadable_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSpec, match="no such file"):
        names({"x": tmp_path / "absent"})
    (tmp_path / "file").write_text("")
    with pytest.raises(BadSpec, match="only a directory"):
        names({".": tmp_path / "file"})


def test_two_inputs_may_share_a_directory_but_not_a_file(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "1"), tree(tmp_path / "2")
    (two / "a.txt").rename(two / "c.txt")
    (two / "b" / "deep" / "run.sh").rename(two / "b" / "deep" / "walk.sh")
    (two / "b" / "link").unlink()
    assert {"r/a.txt", "r/c.txt"} <= set(names({"r": one, "r/.": two}))
    with pytest.raises(BadSpec, match="same place"):
        names({"r": one, "r/a.txt": two / "c.txt"})


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.binary(max_size=3000), max_size=6))
def test_whatever_goes_in_is_what_comes_out(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    root = tmp_path_factory.mktemp("any")
    for name, data in files.items():
        (root / name).write_bytes(data)
    with packed({".": root}) as tar, tarfile.open(fileobj=tar.file) as archive:
        found = {member.name: archive.extractfile(member) for member in archive}
        assert {name: file.read() for name, file in found.items() if file} == files
