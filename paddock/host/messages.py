"""What the host worker asks of the keeper and of a supervisor; local words, never in history."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from paddock.contracts.base import Wire
from paddock.contracts.errors import ErrorInfo
from paddock.contracts.fleet import Hold, StaleTemplate
from paddock.contracts.hosts import Boot, SandboxRef
from paddock.contracts.ids import SandboxId
from paddock.contracts.report import Denial, Receipt
from paddock.contracts.spec import OutputGlob, Shape, TaskSpec


class KeeperAsk(Wire):
    """One request to the keeper; `id` comes back with the answer."""

    id: int
    op: Literal[
        "boot",
        "destroy",
        "revoke",
        "seal",
        "extend",
        "forget",
        "inventory",
        "survey",
        "leases",
        "subscribe",
        "template",
    ]
    boot: Boot | None = None
    sandbox_id: SandboxId | None = None
    lease_end: datetime | None = None
    image: str = ""
    shape: Shape = Shape()


class Held(Wire):
    """A sandbox that the host holds, alive or not."""

    ref: SandboxRef
    alive: bool
    lease_end: datetime
    caller_keys: tuple[str, ...] = ()
    created: datetime | None = None
    protected: bool = False


class Stray(Wire):
    """What carries a sandbox's name, or half of one, without a record; `foreign` says why it may be another host's."""

    name: str
    age_s: float | None = None
    holds: tuple[Hold, ...] = ()
    foreign: str = ""


class KeeperAnswer(Wire):
    """The keeper's answer, or with `id` 0 news: a sandbox whose supervisor or VMM is gone."""

    id: int
    error: ErrorInfo | None = None
    pid: int = 0
    receipts: tuple[Receipt, ...] = ()
    held: tuple[Held, ...] = ()
    lost: SandboxRef | None = None
    why: str = ""
    gone: str = ""
    checked_by: str = ""
    events: int = 0
    head: str = ""
    path: str = ""
    pids: dict[str, int] = Field(default_factory=dict)
    strays: tuple[Stray, ...] = ()
    templates: tuple[StaleTemplate, ...] = ()
    leases: dict[str, float] = Field(default_factory=dict)
    more: int = 0


class Ask(Wire):
    """One request to a supervisor; content frames may follow (`put`) or come back (`get`)."""

    op: Literal[
        "ready",
        "attach",
        "run",
        "wait",
        "watch",
        "kill",
        "put",
        "get",
        "extend",
        "callers",
        "denied",
        "pause",
        "resume",
    ]
    signed: str = Field("", repr=False)
    task: int = 0
    spec: TaskSpec | None = None
    inputs: tuple[str, ...] = ()
    path: str = ""
    output: OutputGlob | None = None
    lease_end: datetime | None = None
    caller_keys: tuple[str, ...] = ()
    stdin_bytes: int | None = None


class Answer(Wire):
    """A supervisor's answer."""

    parts_ms: dict[str, float] = Field(default_factory=dict)
    digest: str = ""
    probes: int = 0
    started: bool = False
    grew: bool = False
    denied: tuple[Denial, ...] = ()
    caller_keys: tuple[str, ...] = ()


class RunRecord(Wire):
    """What the keeper alone writes of a sandbox, before anything of it exists: identity comes first.

    `deadline` is the lease's end by CLOCK_MONOTONIC, which no jump moves and which a keeper's successor shares.
    """

    ref: SandboxRef
    boot: Boot
    index: int
    pid: int = 0
    started: int = 0
    created: datetime
    lease_end: datetime
    deadline: float = 0.0
