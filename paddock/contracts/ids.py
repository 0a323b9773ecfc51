"""Identifiers, and the one function that derives a sandbox's id."""

import hashlib
from typing import Annotated

from pydantic import StringConstraints

SandboxId = Annotated[str, StringConstraints(pattern=r"^sb-[0-9a-f]{20}$")]
HostId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


def sandbox_id(workflow_id: str, first_run_id: str) -> str:
    """The sandbox's id: any workflow id works, and a reset or continued run keeps it."""
    return "sb-" + hashlib.sha256(f"{workflow_id}\n{first_run_id}".encode()).hexdigest()[:20]


def digest(data: bytes) -> str:
    """`sha256:` and 64 hex digits of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
