"""Run directories: written in one step, read back whole, and a last word for those who come later."""

from pathlib import Path

import pytest

from paddock.supervisor import rundir


def test_a_reader_sees_the_old_text_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / rundir.VM
    rundir.write(file, rundir.VmRecord(pid=1, started=2))

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError):
        rundir.write(file, rundir.VmRecord(pid=3, started=4))
    assert rundir.VmRecord.model_validate_json(file.read_bytes()) == rundir.VmRecord(pid=1, started=2)


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    rundir.write(tmp_path / rundir.META, rundir.Farewell(why="x"))
    assert [path.name for path in tmp_path.iterdir()] == [rundir.META]


def test_the_last_word_is_told_and_without_one_that_there_was_none(tmp_path: Path) -> None:
    assert rundir.why(tmp_path) == "the supervisor died without a word"
    assert rundir.why(tmp_path / "absent") == "the supervisor died without a word"
    (tmp_path / rundir.FAREWELL).write_text('{"why": ')
    assert rundir.why(tmp_path) == "the supervisor died without a word"
    rundir.write(tmp_path / rundir.FAREWELL, rundir.Farewell(why="the lease ended"))
    assert rundir.why(tmp_path) == "the lease ended"
