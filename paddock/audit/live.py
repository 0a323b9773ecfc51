"""Verification of chains that still grow: the spool's lines against the newest checkpoint of a running recorder."""

from datetime import datetime
from pathlib import Path

from paddock.audit.checkpoint import Keys
from paddock.audit.segments import chain_lines, checkpoint_path
from paddock.audit.verify import Verdict, verify

STALE_S = 120.0


def live(directory: Path) -> list[str]:
    """Sandboxes with a checkpoint whose chains are not sealed."""
    return sorted(path.name for path in (directory / "checkpoints").glob("[a-z0-9]*"))


def verify_live(directory: Path, sandbox: str, keys: Keys, now: float) -> Verdict | None:
    """Verdict on a chain in the spool, None when it is not there; `now` in seconds since 1970. Raises OSError."""
    # The checkpoint first: the lines that are read after it can only be more than it covers.
    try:
        note: str | None = checkpoint_path(directory, sandbox).read_text()
    except FileNotFoundError:
        note = None
    data = b"".join(line + b"\n" for line in chain_lines(directory, sandbox))
    if not data and note is None:
        return None
    verdict = verify(data, note, keys, sandbox=sandbox, sealed=False)
    if verdict.state != "whole" or now - datetime.fromisoformat(verdict.signed_at).timestamp() < STALE_S:
        return verdict
    stale = f"stale: the last checkpoint is of {verdict.signed_at}, no recorder signs now"
    return Verdict("unknown", verdict.events, verdict.head, (stale,), sandbox, verdict.signer, verdict.signed_at)
