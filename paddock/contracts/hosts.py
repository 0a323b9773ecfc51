"""What the workflow and a host's activities say to each other: ids, digests, sizes, never content."""

from datetime import datetime

from pydantic import Field

from paddock.contracts.base import Wire
from paddock.contracts.errors import ErrorInfo
from paddock.contracts.ground import DrainSpec, Grown, Wanted
from paddock.contracts.ids import EnvironmentName, HostId, SandboxId
from paddock.contracts.report import AuditSummary, Denial, OutputFile, Receipt, TaskResult
from paddock.contracts.spec import InputRef, OutputGlob, Shape, TaskSpec


class SandboxRef(Wire):
    """Which sandbox an activity is about."""

    sandbox_id: SandboxId
    workflow_id: str
    run_id: str
    environment: str
    host: str = ""
    project: str = "default"
    owner: str = ""


class ResolvedPolicy(Wire):
    """A compiled policy for one sandbox, signed for it by the control plane until an end."""

    name: str
    revision: int
    digest: str
    signed: str = Field(repr=False)
    has_secrets: bool = False


class PolicyRequest(Wire):
    """Which policy a sandbox asks for, and until when the answer must hold."""

    ref: SandboxRef
    policy: str
    image: str
    lease_end: datetime


class Reservation(Wire):
    """What a host must know to promise a slot: a short lease in its own table, confirmed by boot."""

    ref: SandboxRef
    shape: Shape
    image: str = "base"
    lifetime_s: int = 3600
    caller_keys: tuple[str, ...] = ()


class Placed(Wire):
    """The host that took the sandbox; `full` is a refusal by a host that filled up meanwhile."""

    host: str
    relay: str = ""
    full: bool = False
    error: ErrorInfo | None = None


class Boot(Wire):
    """Everything the host needs to boot one sandbox."""

    ref: SandboxRef
    image: str
    shape: Shape
    lease_end: datetime
    caller_keys: tuple[str, ...] = ()
    protected: bool = False


class Booted(Wire):
    """A booted sandbox: how long each part of it took, in ms."""

    parts_ms: dict[str, float] = Field(default_factory=dict)


class Attach(Wire):
    """Put this policy on the fence of this sandbox."""

    ref: SandboxRef
    policy: ResolvedPolicy


class Attached(Wire):
    """The digest that the supervisor says it enforces, after its self-test passed."""

    digest: str
    probes: int = 0


class RunTask(Wire):
    """Run task number `task` (from 1) in a sandbox."""

    ref: SandboxRef
    task: int
    spec: TaskSpec
    inputs: tuple[InputRef, ...] = ()


class Collect(Wire):
    """Bring files out."""

    ref: SandboxRef
    outputs: tuple[OutputGlob, ...]


class Collected(Wire):
    """What came out."""

    outputs: tuple[OutputFile, ...] = ()


class Undone(Wire):
    """Receipts of one undo, with what the resource still had to say."""

    receipts: tuple[Receipt, ...] = ()
    denied: tuple[Denial, ...] = ()


class Sealed(Wire):
    """The sealed chain of one sandbox, verified."""

    audit: AuditSummary
    denied: tuple[Denial, ...] = ()


class ExtendLease(Wire):
    """Move the supervisor's own deadline."""

    ref: SandboxRef
    lease_end: datetime


class AllowCaller(Wire):
    """Let a caller's key open this sandbox's streams."""

    ref: SandboxRef
    caller_key: str


class HostSpec(Wire):
    """Argument of `Host`: a machine that joined an environment, or with `wanted` one that is to be made.

    `attempt` is which machine of the host speaks (0: nobody made it). The rest is for a run that goes on as
    another: whether the host was `here` or `lost`, and what it was told.
    """

    environment: EnvironmentName
    host: HostId
    relay: str = ""
    slots: int = 1
    attempt: int = 0
    wanted: Wanted | None = None
    lost: bool = False
    here: bool = False
    since: datetime | None = None
    grown: Grown | None = None
    drain: DrainSpec | None = None
    drain_ends: datetime | None = None


class Fenced(Wire):
    """Whether a lost host is surely ended, and how that was checked; else its sandboxes wait for their deadlines."""

    gone: bool = False
    checked_by: str


class HostNews(Wire):
    """What the sandboxes of a host are told: that it is lost, or with `gone` that it is proved to be gone."""

    environment: EnvironmentName
    host: HostId
    gone: bool = False
    words: str


class HeldSandbox(Wire):
    """A sandbox that a host says it holds."""

    sandbox_id: str
    workflow_id: str
    run_id: str


class TaskDone(Wire):
    """How `run_task` ended, with an error of Paddock's own when the program never ran."""

    result: TaskResult
    error: ErrorInfo | None = None
