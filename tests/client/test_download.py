"""Outputs are written where the caller said and nowhere else, whatever the host names them."""

from pathlib import Path

import pytest

from paddock.client.errors import ClientError
from paddock.client.sandbox import _below


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", "..", "a\0b"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ClientError, match="outside"):
        _below(tmp_path, name)


def test_a_link_that_lies_there_is_not_followed_out(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ClientError, match="outside"):
        _below(tmp_path / "out", "sub/file")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_directories_in_between_are_made(tmp_path: Path) -> None:
    assert _below(tmp_path / "out", "a/b/c.txt") == tmp_path / "out" / "a" / "b" / "c.txt"
    assert (tmp_path / "out" / "a" / "b").is_dir()
