"""What a host's own files and its secret store still hold of sandboxes, read as plain JSON and plain names."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.observer.snapshot import Trace

LAPSES_S = 60.0


def kept(state: Path, ended: frozenset[str] | None = None) -> list[Trace]:
    """Slots, records, run directories, store accessors and open audit chains of sandboxes that should be gone.

    `ended` names those that ended; None means that every sandbox has.
    """
    host = state / "host"
    found = [Trace("slot", name, why) for name, why in _slots(host / "worker" / "slots.json")]
    found += [Trace("lease", name, f"accessors of {name} in the broker's file") for name in _accessors(host)]
    for kind, place in (("record", "held"), ("run directory", "run")):
        found += [Trace(kind, path.name.partition(".")[0], str(path)) for path in _in(host / place)]
    for path in _in(host / "output"):
        if not (host / "audit" / "sealed" / path.name / "checkpoint").is_file():
            found.append(Trace("chain", path.name, f"the audit chain of {path.name} is not sealed"))
    for path in _in(host / "audit" / "sealed"):
        if path.name.startswith("."):
            found.append(Trace("chain", path.name.strip(".").partition(".")[0], f"half a chain: {path}"))
    for path in _in(host / "audit" / "checkpoints"):
        found.append(Trace("chain", path.name.partition(".")[0], f"a checkpoint of an open chain: {path}"))
    return [trace for trace in found if ended is None or trace.id in ended]


def tokens(address: str, root: str) -> list[Trace]:
    """Tokens that the store gave out for sandboxes and that it still takes, asked over its own HTTP interface."""
    found = []
    for accessor in _ask(address, root, "LIST", "auth/token/accessors").get("keys", ()):
        data = _ask(address, root, "POST", "auth/token/lookup-accessor", {"accessor": accessor})
        name = str(data.get("display_name", ""))
        if "sb-" in name:
            found.append(Trace("lease", f"sb-{name.partition('sb-')[2]}", f"store token {accessor} of {name}"))
    return found


def recorded_accessors(state: Path) -> set[str]:
    """Accessors that the broker's file names."""
    return {accessor for each in _accessors(state / "host").values() for accessor in each}


def _slots(file: Path) -> list[tuple[str, str]]:
    """Held slots; a reservation that nobody confirmed is a lease of its own, and is one only past its end."""
    now, found = time.time(), []
    for name, slot in _json(file).get("held", {}).items():
        if slot.get("confirmed") or not 0 < slot.get("expires_at", 0) - now <= LAPSES_S:
            found.append((name, f"slot of {slot.get('workflow_id')}: {json.dumps(slot)}"))
    return found


def _accessors(host: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = _json(host / "broker" / "accessors.json").get("accessors", {})
    return found


def _json(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    return found


def _in(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []


def _ask(address: str, root: str, method: str, path: str, body: object = None) -> dict[str, Any]:
    request = urllib.request.Request(f"{address}/v1/{path}", method=method, headers={"X-Vault-Token": root})
    if body is not None:
        request.data = json.dumps(body).encode()
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)["data"]
    except urllib.error.HTTPError as refused:
        if refused.code not in (403, 404):  # a token that ended between the list and the look
            raise
        return {}
    return found
