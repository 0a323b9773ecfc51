"""The recorder as a process: what it acknowledges is on disk, what it cannot keep it refuses."""

import errno
import json
import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from paddock.audit.verify import verify_sandbox
from tests.audit.rig import KEYS, Keeper, hear, lines_of, record, say, until

Keep = Callable[..., Keeper]


def test_a_recorded_event_is_on_disk_when_it_is_answered(keep: Keep) -> None:
    keeper = keep()
    box = keeper.adopt()
    assert record(box, 1, decision="allow", rule="api")["seq"] == 2
    keeper.kill()
    first, second = lines_of(keeper.directory / "spool" / "00000001.ndjson")
    assert (first["kind"], first["seq"], first["prev"]) == ("audit.opened", 1, "00" * 32)
    assert (second["decision"], second["rule"], second["on_behalf_of"], second["actor"]) == (
        "allow",
        "api",
        "ana",
        "guest",
    )


def test_a_sealed_chain_verifies_and_sealing_again_answers_the_same(keep: Keep) -> None:
    keeper = keep()
    box = keeper.adopt()
    for number in range(1, 6):
        record(box, number)
    answer = keeper.seal()
    assert answer["events"] == 7
    verdict = verify_sandbox(Path(answer["path"]), KEYS)
    assert (verdict.state, verdict.events, verdict.head) == ("whole", 7, answer["head"])
    again = keeper.seal()
    assert {**again, "id": 0} == {**answer, "id": 0}
    assert box.recv(10) == b"", "the supervisor of a sealed chain is cut off"


def test_sealing_a_sandbox_that_never_had_a_chain_answers_nothing_was_there(keep: Keep) -> None:
    assert keep().seal("sb-none") == {"id": 1, "events": 0, "head": "", "path": ""}


def test_a_sealed_chain_takes_no_supervisor_and_no_event_any_more(keep: Keep) -> None:
    keeper = keep()
    keeper.adopt()
    keeper.seal()
    assert keeper.adopt().recv(10) == b""


def test_the_same_action_sent_again_is_recorded_once_but_another_content_is_kept(keep: Keep) -> None:
    keeper = keep()
    box = keeper.adopt()
    assert record(box, 1)["seq"] == 2
    assert record(box, 1)["seq"] == 2
    assert record(box, 1, detail={"n": "other"})["seq"] == 3
    assert record(box, 1, kind="egress.response")["seq"] == 4


def test_repetitions_are_known_to_the_next_recorder(keep: Keep) -> None:
    keeper = keep()
    box = keeper.adopt()
    seq = record(box, 1)["seq"]
    keeper.kill()
    keeper.start()
    assert record(keeper.adopt(), 1)["seq"] == seq
    kinds = [line["kind"] for line in lines_of(keeper.directory / "spool" / "00000001.ndjson")]
    assert kinds == ["audit.opened", "egress.request", "audit.reopened"]


def test_a_torn_tail_is_cut_and_said(keep: Keep) -> None:
    keeper = keep()
    record(keeper.adopt(), 1)
    keeper.kill()
    spool = keeper.directory / "spool" / "00000001.ndjson"
    spool.write_bytes(spool.read_bytes() + b'{"action_id":"half')
    keeper.start()
    record(keeper.adopt(), 2)
    assert lines_of(spool)[2]["detail"] == {"torn_bytes": 18}
    assert verify_sandbox(Path(keeper.seal()["path"]), KEYS).state == "whole"


@pytest.mark.parametrize("edit", [(b'"n":1', b'"n":7'), (b'"seq":2', b'"seq":9'), (b'{"action', b"\x00\x00action")])
def test_a_recorder_does_not_write_behind_lines_that_were_changed(keep: Keep, edit: tuple[bytes, bytes]) -> None:
    keeper = keep()
    box = keeper.adopt()
    record(box, 1)
    record(box, 2)
    keeper.kill()
    spool = keeper.directory / "spool" / "00000001.ndjson"
    lines = spool.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(*edit)
    spool.write_bytes(b"\n".join(lines))
    keeper.start()
    assert keeper.wait() == 1


def test_a_recorder_does_not_go_on_behind_whole_lines_that_were_taken_away(keep: Keep) -> None:
    keeper = keep(checkpoint_s=0.05)
    box = keeper.adopt()
    for number in range(1, 5):
        record(box, number)
    note = keeper.directory / "checkpoints" / "sb-1"
    until(lambda: note.exists() and note.read_text().splitlines()[1] == "5")
    keeper.kill()
    spool = keeper.directory / "spool" / "00000001.ndjson"
    spool.write_bytes(b"".join(spool.read_bytes().splitlines(keepends=True)[:-1]))
    keeper.start()
    assert keeper.wait() == 1


def test_repetitions_are_known_across_a_rotation(keep: Keep) -> None:
    keeper = keep(segment_bytes=1 << 16)
    box = keeper.adopt()
    for number in range(1, 8):
        record(box, number, detail={"x": "y" * 20_000})
    assert len(list((keeper.directory / "spool").glob("*.ndjson"))) == 3
    keeper.kill()
    keeper.start()
    box = keeper.adopt()
    for number in range(4, 8):
        assert record(box, number, detail={"x": "y" * 20_000})["seq"] == number + 1
    assert keeper.seal()["events"] == 10
    assert verify_sandbox(keeper.directory / "sealed" / "sb-1", KEYS).state == "whole"


def test_a_supervisor_that_writes_garbage_is_cut_off_and_the_others_go_on(keep: Keep) -> None:
    keeper = keep()
    good = keeper.adopt("sb-good")
    for garbage in (b"\xff" * 50, b"[" * 5000, b"{}", b'{"id":1,"mode":"strict"}', b"x" * 140_000):
        bad = keeper.adopt("sb-bad")
        bad.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        bad.send(garbage)
        assert bad.recv(100) == b""
        assert record(good, 1)["seq"] == 2
    assert keeper.seal("sb-bad")["events"] >= 6
    kinds = [line["kind"] for line in lines_of(keeper.directory / "sealed" / "sb-bad" / "chain.ndjson")]
    assert kinds.count("audit.violation") == 5


def test_an_event_that_is_wrong_is_answered_in_words_and_costs_nothing_else(keep: Keep) -> None:
    box = keep().adopt()
    assert "kind" in record(box, 1, kind="No Kind")["error"]
    assert "only the recorder" in record(box, 2, kind="audit.sealed")["error"]
    assert "digest" in record(box, 3, detail={"body": "x" * 70_000})["error"]
    assert record(box, 4)["seq"] == 2


def test_a_supervisor_that_never_reads_its_answers_is_cut_off(keep: Keep) -> None:
    keeper = keep()
    box = keeper.adopt()

    def flood() -> None:
        for number in range(1, 100_000):
            say(box, number=number)

    with pytest.raises(OSError):
        flood()
    assert record(keeper.adopt("sb-2"), 1)["seq"] == 2


def test_a_full_spool_refuses_and_takes_again_once_a_sandbox_was_sealed(keep: Keep) -> None:
    keeper = keep(max_bytes=4 << 20, segment_bytes=1 << 18, sandbox_bytes=4 << 20)
    big, other = keeper.adopt("sb-big"), keeper.adopt("sb-other")
    number = 1
    while "seq" in (answer := record(big, number, detail={"x": "y" * 60_000})):
        number += 1
    assert "full" in answer["error"]
    assert answer["full"] is True
    assert "full" in record(other, 1, detail={"x": "y" * 60_000})["error"]
    big.send(json.dumps({"id": 1, "mode": "gap", "dropped": 3, "action_id": "g"}).encode())
    assert "seq" in hear(big), "the count of what was dropped has room kept for it"
    before = keeper.ask("stats")["segments"]
    assert keeper.seal("sb-big")["events"] == number + 2
    assert keeper.ask("stats")["segments"] < before
    assert "seq" in record(other, 2, detail={"x": "y" * 60_000})
    assert verify_sandbox(keeper.directory / "sealed" / "sb-big", KEYS).state == "whole"


def test_one_sandbox_cannot_use_up_the_spool_of_the_others(keep: Keep) -> None:
    keeper = keep(max_bytes=4 << 20)
    greedy, modest = keeper.adopt("sb-greedy"), keeper.adopt("sb-modest")
    number = 1
    while "seq" in (answer := record(greedy, number, detail={"x": "y" * 60_000})):
        number += 1
    assert "share" in answer["error"]
    assert "seq" in record(modest, 1, detail={"x": "y" * 60_000})


def test_recovery_after_rotation_and_deletion_of_segments(keep: Keep) -> None:
    keeper = keep(segment_bytes=1 << 16)
    long, short = keeper.adopt("sb-long"), keeper.adopt("sb-short")
    record(long, 1)
    for number in range(1, 40):
        record(short, number, detail={"x": "y" * 20_000})
    keeper.seal("sb-short")
    kept = sorted(path.name for path in (keeper.directory / "spool").glob("*.ndjson"))
    assert kept[0] == "00000001.ndjson"
    assert len(kept) == 2, "only the segment that holds a line of the other, and the open one"
    keeper.kill()
    keeper.start()
    long = keeper.adopt("sb-long")
    assert record(long, 2)["seq"] == 4
    verdict = verify_sandbox(Path(keeper.seal("sb-long")["path"]), KEYS)
    assert (verdict.state, verdict.events) == ("whole", 5)


def limited() -> None:
    """As a disk that is full at 50 kB a file; the signal would otherwise kill."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))


def test_a_failed_write_refuses_the_group_and_leaves_whole_lines(keep: Keep) -> None:
    keeper = keep(before=limited)
    box = keeper.adopt()
    number = 1
    while "seq" in (answer := record(box, number, detail={"x": "y" * 20_000})):
        number += 1
    assert answer["error"]
    assert "writing failed" in answer["error"]
    spool = keeper.directory / "spool" / "00000001.ndjson"
    assert [line["seq"] for line in lines_of(spool)] == list(range(1, number + 1))
    assert record(box, 90)["seq"] == number + 1, "a smaller one fits: the chain has no hole"
    box.close()
    keeper.kill()
    keeper.before = lambda: None
    keeper.start()
    assert record(keeper.adopt(), 91)["seq"] == number + 3
    assert verify_sandbox(Path(keeper.seal()["path"]), KEYS).state == "whole"


def failing_sync(flag: Path) -> Callable[[], None]:
    """As a disk that loses writes, while the flag is there."""

    def before() -> None:
        sync = os.fdatasync

        def fails(descriptor: int) -> None:
            if flag.exists():
                raise OSError(errno.EIO, "Input/output error")
            sync(descriptor)

        os.fdatasync = fails

    return before


def test_when_the_disk_does_not_take_it_nothing_is_acknowledged_until_a_restart(keep: Keep, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    keeper = keep(before=failing_sync(flag))
    box = keeper.adopt()
    assert record(box, 1)["seq"] == 2
    flag.touch()
    assert "fdatasync failed" in record(box, 2)["error"]
    flag.unlink()
    assert "restart" in record(box, 3)["error"], "a second fdatasync would say yes without writing"
    assert "fdatasync" in keeper.ask("stats")["failed"]
    assert "error" in keeper.seal()
    keeper.kill()
    keeper.start()
    assert "seq" in record(keeper.adopt(), 4)
    assert verify_sandbox(Path(keeper.seal()["path"]), KEYS).state == "whole"


def full_disk(flag: Path) -> Callable[[], None]:
    """As a full disk, while the flag is there: half of a write goes, the rest does not."""

    def before() -> None:
        write = os.write

        def fails(descriptor: int, data: bytes) -> int:
            if flag.exists() and len(data) > 100:
                return write(descriptor, bytes(data)[:100])
            if flag.exists():
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(descriptor, data)

        os.write = fails

    return before


def test_a_full_disk_refuses_and_takes_again_once_there_is_room(keep: Keep, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    keeper = keep(before=full_disk(flag))
    box = keeper.adopt()
    assert record(box, 1)["seq"] == 2
    flag.touch()
    for number in (2, 3):
        answer = record(box, number)
        assert "No space left" in answer["error"]
        assert answer["full"] is True
    flag.unlink()
    assert record(box, 3)["seq"] == 3
    answer = keeper.seal()
    assert answer["events"] == 4, "the third event is there: what was refused before is no repetition"
    assert verify_sandbox(Path(answer["path"]), KEYS).state == "whole"


def test_the_recorder_serves_on_without_its_keeper_until_another_recorder_claims_the_directory(
    keep: Keep, tmp_path: Path
) -> None:
    first = keep()
    box = first.adopt()
    record(box, 1)
    first.control.close()
    assert record(box, 2)["seq"] == 3
    second = keep()
    assert record(second.adopt(), 3)["seq"] == 5
    assert box.recv(10) == b""
    assert os.waitpid(first.pid, 0)[1] == 0
    first.pid = 0


def test_a_second_recorder_is_refused_while_the_first_has_its_keeper(
    keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = keep()
    record(first.adopt(), 1)
    monkeypatch.setattr("paddock.audit.recorder.TAKE_OVER_S", 0.2)
    assert keep().wait() == 1
    assert first.stop() == 0


def test_a_keepers_packet_that_is_none_does_no_harm(keep: Keep) -> None:
    keeper = keep()
    for packet in (b"garbage", b'{"op":"adopt","sandbox":"../etc"}', b'{"op":"adopt","sandbox":"sb-1"}'):
        keeper.control.send(packet)
    error = json.loads(keeper.control.recv(1000))
    assert error["error"] == "adopt comes with a socket"
    assert record(keeper.adopt(), 1)["seq"] == 2
