"""Where a sandbox is: the answer of its `status` query and of its `attach` update."""

from datetime import datetime
from enum import StrEnum

from paddock.contracts.base import Wire


class State(StrEnum):
    """Lifecycle of a sandbox."""

    ADMITTED = "admitted"
    PLACING = "placing"
    BOOTING = "booting"
    FENCING = "fencing"
    READY = "ready"
    RUNNING = "running"
    COLLECTING = "collecting"
    PAUSED = "paused"
    QUARANTINED = "quarantined"
    ENDING = "ending"
    ENDED = "ended"


class Status(Wire):
    """State, place, lease and policy of one sandbox; `finding` says in words why it stays `ending`."""

    sandbox_id: str
    workflow_id: str
    state: State
    environment: str
    host: str = ""
    relay: str = ""
    policy: str = ""
    policy_digest: str = ""
    lease_end: datetime | None = None
    tasks: int = 0
    owner: str = ""
    finding: str = ""


class Attachment(Wire):
    """Where a caller's streams go: the relay's address and the host behind it."""

    sandbox_id: str
    host: str
    relay: str
