"""A sealed audit chain, read as the lines that it is: whole, in order, as signed for, and with every request in it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

START = "00" * 32


def read_chain(directory: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The events of one sealed chain, and every fault of it in words; no fault means that not a byte is missing."""
    try:
        raw = (directory / "chain.ndjson").read_bytes()
        note = (directory / "checkpoint").read_text().split("\n")
    except OSError as missing:
        return [], [f"{directory.name}: {missing}"]
    lines = raw.split(b"\n")
    faults = [] if lines.pop() == b"" else ["the last line is not whole"]
    events, head, leaves = list[dict[str, Any]](), START, list[bytes]()
    for number, line in enumerate(lines, 1):
        leaves.append(hashlib.sha256(b"\0" + line).digest())
        try:
            event = json.loads(line)
            if event["seq"] != number:
                faults.append(f"line {number} says that it is {event['seq']}")
            if event["prev"] != head:
                faults.append(f"line {number} does not follow from the line before it")
            if event["sandbox"] != directory.name:
                faults.append(f"line {number} is of {event['sandbox']}")
            events.append(event)
        except (ValueError, TypeError, KeyError):
            faults.append(f"line {number} is no event")
        head = leaves[-1].hex()
    if not events or events[-1].get("kind") != "audit.sealed":
        faults.append("the chain has no seal at its end")
    elif events[-1]["detail"]["events"] != len(lines):
        faults.append(f"the seal counts {events[-1]['detail']['events']} events, {len(lines)} are here")
    if len(note) < 3 or note[1] != str(len(lines)) or note[2] != base64.b64encode(root_of(leaves)).decode():
        faults.append(f"the checkpoint is not over these {len(lines)} lines")
    return events, [f"{directory.name}: {fault}" for fault in faults]


def root_of(leaves: list[bytes]) -> bytes:
    """The Merkle tree's root as RFC 6962, section 2.1, defines it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root_of(leaves[:half]) + root_of(leaves[half:])).digest()


def unrecorded(events: Iterable[dict[str, Any]], paths: Iterable[str]) -> list[str]:
    """Those of `paths`, requested with a secret and seen by the server, that the chain does not hold as that."""
    intents, used = dict[str, list[str]](), set[str]()
    for event in events:
        if event["kind"] == "egress.intent":
            intents.setdefault(event["detail"].get("path", ""), []).append(event["action_id"])
        elif event["kind"] == "secret.used":
            used.add(event["action_id"])
    return [path for path in paths if not used & set(intents.get(path, ()))]


def unfinished(events: Iterable[dict[str, Any]]) -> int:
    """How many requests went out by the chain's word and have no outcome there."""
    intents, over = set[str](), set[str]()
    for event in events:
        if event["kind"] == "egress.intent":
            intents.add(event["action_id"])
        elif event["kind"] in ("egress.outcome", "egress.denied"):
            over.add(event["action_id"])
    return len(intents - over)


def dropped(events: Iterable[dict[str, Any]]) -> int:
    """How many buffered events the chain itself says are missing: none of them was ever acknowledged."""
    return sum(event["detail"]["dropped"] for event in events if event["kind"] == "audit.gap")
