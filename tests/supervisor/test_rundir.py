"""Run directories: written in one step, read back whole, and a last word for those who come later."""

import os
from pathlib import Path

import pytest

from paddock.supervisor import rundir
from paddock.supervisor.rundir import FAREWELL, SILENT, Farewell


def test_a_reader_sees_the_old_text_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rundir.write(tmp_path / FAREWELL, Farewell(why="the old text"))

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError):
        rundir.write(tmp_path / FAREWELL, Farewell(why="the new one"))
    assert rundir.why(tmp_path) == "the old text"


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    rundir.write(tmp_path / FAREWELL, Farewell(why="x"))
    assert [path.name for path in tmp_path.iterdir()] == [FAREWELL]


def test_the_last_word_is_told_and_without_one_that_there_was_none(tmp_path: Path) -> None:
    assert rundir.why(tmp_path) == SILENT
    assert rundir.why(tmp_path / "absent") == SILENT
    rundir.write(tmp_path / FAREWELL, Farewell(why="the lease ended"))
    assert rundir.why(tmp_path) == "the lease ended"


@pytest.mark.parametrize("kind", ["cut", "not text", "pipe", "link", "folder", "endless"])
def test_whatever_a_supervisor_leaves_in_place_of_its_word_is_read_as_silence(kind: str, tmp_path: Path) -> None:
    file, secret = tmp_path / FAREWELL, tmp_path / "secret"
    secret.write_text(Farewell(why="what only the keeper may read").model_dump_json())
    match kind:
        case "cut":
            file.write_text('{"why": ')
        case "not text":
            file.write_bytes(b"\xff\xfe")
        case "pipe":
            os.mkfifo(file)
        case "link":
            file.symlink_to(secret)
        case "folder":
            file.mkdir()
        case "endless":
            rundir.write(file, Farewell(why="x" * (1 << 20)))
    assert rundir.why(tmp_path) == SILENT
