"""A task's output file: every byte up to the limit, hashed, and no byte after its end."""

import errno
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.supervisor import tasks as module
from paddock.supervisor.tasks import RECORD, Output


def records(file: Path) -> list[tuple[int, bytes]]:
    data, out = file.read_bytes(), []
    while data:
        chan, length = RECORD.unpack_from(data)
        out.append((chan, data[RECORD.size : RECORD.size + length]))
        data = data[RECORD.size + length :]
    return out


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from((1, 2)), st.binary(max_size=40)), max_size=20), st.integers(1, 200))
def test_what_was_written_up_to_the_limit_is_there_and_the_digest_is_its_own(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, bytes]], limit: int
) -> None:
    file = tmp_path_factory.mktemp("output") / "1.out"
    output = Output(file, limit)
    for chan, data in writes:
        output.write(chan, memoryview(data))
    digest = output.close()
    everything = b"".join(data for _, data in writes)
    kept = b"".join(data for _, data in records(file))
    assert kept == everything[:limit]
    assert output.bytes == len(kept)
    assert digest == "sha256:" + hashlib.sha256(kept).hexdigest()
    assert output.full == ("output-limit" if len(everything) > limit else "")


def test_output_of_exactly_the_limit_is_not_over_it(tmp_path: Path) -> None:
    output = Output(tmp_path / "1.out", 4)
    output.write(1, memoryview(b"four"))
    assert output.full == ""
    output.write(2, memoryview(b"!"))
    assert output.full == "output-limit"
    output.close()


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, "disk-full"), (errno.EIO, "internal")])
def test_a_disk_that_takes_no_more_is_said_and_nothing_more_is_counted(
    number: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Output(tmp_path / "1.out", 1000)
    output.write(1, memoryview(b"kept"))

    def full(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module.os, "writev", full)
    output.write(1, memoryview(b"lost"))
    assert (output.full, output.bytes) == (kind, 4)
    assert output.close() == "sha256:" + hashlib.sha256(b"kept").hexdigest()


def test_a_disk_that_takes_half_a_record_leaves_whole_ones_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Output(tmp_path / "1.out", 1000)
    output.write(1, memoryview(b"kept"))
    real = os.writev

    def half(fd: int, parts: list[bytes | memoryview]) -> int:
        return real(fd, [b"".join(parts)[:7]])

    monkeypatch.setattr(module.os, "writev", half)
    output.write(1, memoryview(b"cut in two"))
    assert output.full == "disk-full"
    assert records(tmp_path / "1.out") == [(1, b"kept")]
    assert output.bytes == 4
    output.close()


def test_output_after_the_end_goes_nowhere(tmp_path: Path) -> None:
    output = Output(tmp_path / "1.out", 1000)
    digest = output.close()
    innocent = os.open(tmp_path / "innocent", os.O_WRONLY | os.O_CREAT)  # it gets the descriptor that was closed
    output.write(1, memoryview(b"late"))
    assert output.close() == digest, "closing again says the same and closes nobody else's file"
    assert os.fstat(innocent).st_size == 0
    os.close(innocent)
