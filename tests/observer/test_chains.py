"""A chain that is whole is called whole; a line cut out, swapped, changed or added is called by its name."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.observer.chains import START, dropped, read_chain, root_of, unfinished, unrecorded

SAID: list[dict[str, object]] = [
    {"kind": "audit.opened", "action_id": "", "detail": {}},
    {"kind": "egress.intent", "action_id": "a-1", "detail": {"path": "/1/0/1/0"}},
    {"kind": "secret.used", "action_id": "a-1", "detail": {"path": "/1/0/1/0"}},
    {"kind": "audit.gap", "action_id": "", "detail": {"dropped": 3}},
    {"kind": "egress.intent", "action_id": "a-2", "detail": {"path": "/1/0/1/5"}},
    {"kind": "audit.sealed", "action_id": "", "detail": {"events": 6}},
]


def write(directory: Path, said: list[dict[str, object]]) -> Path:
    """A sealed chain, made by hand as docs/audit-events.md says."""
    lines, prev = list[bytes](), START
    for seq, event in enumerate(said, 1):
        lines.append(json.dumps({**event, "seq": seq, "prev": prev, "sandbox": directory.name}).encode())
        prev = hashlib.sha256(b"\0" + lines[-1]).hexdigest()
    directory.mkdir()
    (directory / "chain.ndjson").write_bytes(b"".join(line + b"\n" for line in lines))
    root = root_of([hashlib.sha256(b"\0" + line).digest() for line in lines])
    note = f"local/local-1/{directory.name}\n{len(lines)}\n{base64.b64encode(root).decode()}\n\n- nobody\n"
    (directory / "checkpoint").write_text(note)
    return directory


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    return write(tmp_path / "sb-1", [dict(event) for event in SAID])


def lines_of(chain: Path) -> list[bytes]:
    return (chain / "chain.ndjson").read_bytes().splitlines(keepends=True)


def test_a_whole_chain_has_no_fault(chain: Path) -> None:
    events, faults = read_chain(chain)
    assert faults == []
    assert [event["kind"] for event in events] == [event["kind"] for event in SAID]
    assert dropped(events) == 3


def cut_out(lines: list[bytes]) -> list[bytes]:
    return lines[:2] + lines[3:]


def cut_tail(lines: list[bytes]) -> list[bytes]:
    return lines[:-1]


def swapped(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[2], lines[1], *lines[3:]]


def changed(lines: list[bytes]) -> list[bytes]:
    return [*lines[:4], lines[4].replace(b"/1/0/1/5", b"/1/0/1/6"), lines[5]]


def changed_at_the_end(lines: list[bytes]) -> list[bytes]:
    return [*lines[:-1], lines[-1].replace(b'"action_id": ""', b'"action_id": "x"')]


def doubled(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[2], *lines[3:]]


def torn(lines: list[bytes]) -> list[bytes]:
    return [*lines[:-1], lines[-1][:-5]]


@pytest.mark.parametrize("wound", [cut_out, cut_tail, swapped, changed, changed_at_the_end, doubled, torn])
def test_each_wound_of_a_chain_is_seen(wound: Callable[[list[bytes]], list[bytes]], chain: Path) -> None:
    (chain / "chain.ndjson").write_bytes(b"".join(wound(lines_of(chain))))
    assert read_chain(chain)[1]


def test_a_chain_that_was_cut_and_numbered_anew_is_seen_by_its_checkpoint(chain: Path, tmp_path: Path) -> None:
    shorter = [dict(event) for event in SAID if event["kind"] != "audit.gap"]
    shorter[-1]["detail"] = {"events": 5}
    forged = write(tmp_path / "sb-2", shorter)
    assert read_chain(forged)[1] == []
    (forged / "checkpoint").write_bytes((chain / "checkpoint").read_bytes())
    assert any("checkpoint" in fault for fault in read_chain(forged)[1])


def test_a_chain_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    assert read_chain(tmp_path / "sb-1")[1]


def test_a_request_without_its_intent_or_without_its_secrets_name_is_unrecorded(chain: Path) -> None:
    events, _ = read_chain(chain)
    paths = ["/1/0/1/0", "/1/0/1/5", "/1/0/1/10"]
    assert unrecorded(events, paths) == ["/1/0/1/5", "/1/0/1/10"]


def test_a_request_without_an_outcome_is_unfinished(chain: Path) -> None:
    events, _ = read_chain(chain)
    assert unfinished(events) == 2
    events.append({"kind": "egress.outcome", "action_id": "a-1", "detail": {}})
    assert unfinished(events) == 1
    events.append({"kind": "egress.denied", "action_id": "a-2", "detail": {}})
    assert unfinished(events) == 0
