"""`paddock audit`, as a person calls it: the program, its words and its exit codes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paddock.audit.checkpoint import verifier_key
from tests.audit.rig import KEYS, NAME, Keeper, record, until


@pytest.fixture
def state(tmp_path: Path) -> Iterator[tuple[Path, Keeper]]:
    root = tmp_path / "state"
    keys = root / "host" / "keys"
    keys.mkdir(parents=True)
    (keys / "recorder.vkey").write_text(verifier_key(NAME, KEYS[NAME]) + "\n")
    keeper = Keeper(root / "host" / "audit", checkpoint_s=0.2)
    yield root, keeper
    keeper.close()


def paddock(root: Path, *argv: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "paddock.cli.app", "audit", *argv, "--state", str(root)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    return done.returncode, done.stdout, done.stderr


def checkpointed(root: Path, sandbox: str, size: int) -> Callable[[], bool]:
    path = root / "host" / "audit" / "checkpoints" / sandbox

    def reached() -> bool:
        return path.exists() and path.read_text().splitlines()[1] == str(size)

    return reached


def test_whole_chains_sealed_and_live_are_whole(state: tuple[Path, Keeper]) -> None:
    root, keeper = state
    record(keeper.adopt("sb-old"), 1)
    keeper.seal("sb-old")
    record(keeper.adopt("sb-live"), 1)
    until(checkpointed(root, "sb-live", 2))
    code, out, _ = paddock(root, "verify")
    assert code == 0, out
    assert "sb-old: whole, 3 events, signed by local/h1 at " in out
    assert "sb-live: whole, 2 events" in out


def test_a_broken_chain_exits_1_and_says_where(state: tuple[Path, Keeper]) -> None:
    root, keeper = state
    box = keeper.adopt()
    for number in range(1, 6):
        record(box, number)
    keeper.seal()
    chain = root / "host" / "audit" / "sealed" / "sb-1" / "chain.ndjson"
    chain.write_bytes(chain.read_bytes().replace(b'"n":3', b'"n":7'))
    code, out, _ = paddock(root, "verify", "sb-1", "--json")
    assert code == 1
    found = json.loads(out)
    assert found["state"] == "broken"
    assert found["problems"][0].startswith("edited at 4")
    code, out, _ = paddock(root, "verify", "--dir", str(chain.parent))
    assert code == 1
    assert "edited at 4" in out


def test_what_cannot_be_told_exits_3(state: tuple[Path, Keeper], tmp_path: Path) -> None:
    root, keeper = state
    record(keeper.adopt(), 1)
    keeper.seal()
    (root / "host" / "keys" / "recorder.vkey").unlink()
    code, out, _ = paddock(root, "verify")
    assert code == 3
    assert "cannot tell" in out
    assert "unknown key" in out
    assert paddock(root, "verify", "sb-none")[0] == 3
    code, _, err = paddock(tmp_path / "nowhere", "verify")
    assert code == 3
    assert "--state" in err


def test_a_key_given_by_name_is_used(state: tuple[Path, Keeper], tmp_path: Path) -> None:
    root, keeper = state
    record(keeper.adopt(), 1)
    keeper.seal()
    elsewhere = tmp_path / "auditor.vkey"
    (root / "host" / "keys" / "recorder.vkey").rename(elsewhere)
    assert paddock(root, "verify", "--key", str(elsewhere))[0] == 0


def test_tail_shows_events_and_lets_no_guest_text_reach_the_terminal_raw(state: tuple[Path, Keeper]) -> None:
    root, keeper = state
    box = keeper.adopt()
    record(box, 1, kind="egress.denied", decision="deny", detail={"host": "evil\x1b[2J\u009b0m.com", "port": 443})
    record(keeper.adopt("sb-2"), 1)
    code, out, _ = paddock(root, "tail", "sb-1")
    assert code == 0
    assert "egress.denied deny" in out
    assert "\x1b" not in out
    assert "\u009b" not in out
    assert "sb-2" not in out
    _, out, _ = paddock(root, "tail", "-n", "1", "--json")
    assert json.loads(out)["sandbox"] == "sb-2"
    keeper.seal("sb-1")
    assert "audit.sealed events=3" in paddock(root, "tail", "sb-1")[1]


def test_tail_follows_across_segments(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "host" / "audit", segment_bytes=4096)
    try:
        box = keeper.adopt()
        record(box, 1)
        argv = [
            sys.executable,
            "-u",
            "-m",
            "paddock.cli.app",
            "audit",
            "tail",
            "-f",
            "--json",
            "--state",
            str(tmp_path),
        ]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as following:
            assert following.stdout
            try:
                seen = [json.loads(following.stdout.readline())["seq"]]
                for number in range(2, 30):
                    record(box, number, detail={"x": "y" * 500})
                while len(seen) < 30:
                    seen.append(json.loads(following.stdout.readline())["seq"])
            finally:
                following.kill()
        assert seen == list(range(1, 31))
        assert len(list((tmp_path / "host" / "audit" / "spool").glob("*.ndjson"))) > 2
    finally:
        keeper.close()
