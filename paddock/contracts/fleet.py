"""`FleetCleanup`: what it is asked, what hosts and the control plane tell it, and the report that it answers."""

from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import Field

from paddock.contracts.base import Strict, Wire
from paddock.contracts.ids import EnvironmentName
from paddock.contracts.report import Receipt

MAX_ROWS: Final = 200
MAX_FOUND: Final = 4000
PAGE: Final = 2000


class CleanupSpec(Strict):
    """What a sweep may do; every field has a default, so `{}` sweeps environment `local`."""

    environment: EnvironmentName = "local"
    dry_run: bool = Field(False, description="Look and report, free nothing.")
    grace_s: int = Field(600, ge=1, le=7 * 86400, description="What is younger than this is left alone.")
    between_s: int = Field(300, ge=1, le=3600, description="Time between the two looks that must agree.")
    allow: int = Field(
        0, ge=0, le=100_000, description="How many sandboxes, and how many machines, a person lets it free at once."
    )
    undo_s: int = Field(120, ge=5, le=3600, description="The longest that freeing one thing may take.")
    host_s: int = Field(15, ge=1, le=600, description="How long a host may take to begin its answer.")


class Hold(StrEnum):
    """What a host may hold of a sandbox."""

    RECORD = "record"
    PROCESSES = "processes"
    RUNDIR = "run directory"
    CGROUP = "cgroup"
    SOCKET = "socket"
    SLOT = "slot"
    CREDENTIAL = "credential"


class Found(Wire):
    """All that a host holds of one sandbox; no age: unknown. `foreign` says why it may be somebody else's."""

    sandbox_id: str
    workflow_id: str = ""
    run_id: str = ""
    age_s: float | None = None
    protected: bool = False
    holds: tuple[Hold, ...] = ()
    foreign: str = ""


class Left(Wire):
    """Output or objects of a sandbox that nobody may ask this host for any more."""

    sandbox_id: str
    age_s: float | None = None
    output: bool = False
    objects: bool = False


class StaleTemplate(Wire):
    """A saved template that this host has not loaded and that nobody wrote to for long."""

    name: str
    age_s: float
    bytes: int = 0


class HostInventory(Wire):
    """What a host really holds, by its own looks; with `missing`, absence from it proves nothing."""

    environment: str
    host: str
    found: tuple[Found, ...] = ()
    left: tuple[Left, ...] = ()
    templates: tuple[StaleTemplate, ...] = ()
    missing: tuple[str, ...] = ()


class OpenHosts(Wire):
    """Hosts of an environment whose `Host` workflow is open, with their states, a moment late.

    `elsewhere` are the hosts of the other environments: whoever lists a cloud may see their machines, too.
    """

    hosts: tuple[str, ...] = ()
    states: dict[str, str] = Field(default_factory=dict)
    elsewhere: tuple[str, ...] = ()


class ListSandboxes(Wire):
    """Ask for one page of an environment's open `Sandbox` workflows; `page` is the token of the page before."""

    environment: str
    page: str = ""


class OpenSandbox(Wire):
    """An open `Sandbox` workflow, as Temporal's index knows it, a moment late."""

    sandbox_id: str
    workflow_id: str
    run_id: str
    host: str = ""
    state: str = ""
    age_s: float | None = None


class OpenSandboxes(Wire):
    """One page of them; an empty `page` is the last one's."""

    open: tuple[OpenSandbox, ...] = ()
    page: str = ""


class Workflow(Wire):
    """Which sandbox's workflow is meant, and on which host it was placed; no sandbox: any run of that name."""

    environment: str
    sandbox_id: str
    workflow_id: str
    run_id: str = ""
    host: str = ""


class Closer(Wire):
    """What Temporal itself says of a workflow, just now: the read that does not lag."""

    running: bool
    words: str


class Told(Wire):
    """Whether a sandbox's workflow was told that its host is lost, or why not."""

    told: bool
    words: str


class Forget(Wire):
    """Drop what ended sandboxes left for their callers."""

    environment: str
    host: str
    sandboxes: tuple[str, ...]


class OtherSweep(Wire):
    """A sweep of the same environment that began before this one and is not over; empty: there is none."""

    workflow_id: str = ""


class Kind(StrEnum):
    """What a row of the report is about."""

    SANDBOX = "sandbox"
    LEFTOVERS = "leftovers"
    WORKFLOW = "workflow"
    TEMPLATE = "template"
    HOST = "host"
    MACHINE = "machine"
    DISK = "disk"
    NIC = "nic"
    ADDRESS = "address"


class Action(StrEnum):
    """What became of it."""

    FREED = "freed"
    WOULD_FREE = "would free"
    TOLD = "told"
    FAILED = "failed"
    FINDING = "finding"
    SPARED = "spared"


class Row(Wire):
    """One thing that the sweep found, what it did with it, and why; no cost: unknown."""

    kind: Kind
    id: str
    host: str = ""
    action: Action
    why: str
    workflow_id: str = ""
    age_s: float | None = None
    holds: tuple[Hold, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    cost_per_hour: float | None = None
    currency: str = ""
    price_as_of: datetime | None = None


class CleanupReport(Wire):
    """What was found, freed, spared and why; `asks` is what a person has to decide or to look at.

    `known` counts sandboxes, `machines` those that are surely ours, `strange` what the provider listed and is not.
    `saves_per_hour` is by currency, of what was freed, or would be, and has a price; `price_as_of` is the oldest's.
    """

    environment: str
    dry_run: bool = False
    passes: int = 0
    hosts: int = 0
    known: int = 0
    machines: int = 0
    strange: int = 0
    counts: dict[Action, int] = Field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    more: int = 0
    saves_per_hour: dict[str, float] = Field(default_factory=dict)
    price_as_of: datetime | None = None
    asks: str = ""
    incomplete: tuple[str, ...] = ()
    took_s: float = 0.0

    @property
    def needs_a_person(self) -> bool:
        """Whether something is wrong that the next sweep does not put right by itself."""
        bad = (Action.FAILED, Action.FINDING, Action.WOULD_FREE)
        return bool(self.asks) or any(self.counts.get(action) for action in bad)


class CleanupProgress(Wire):
    """Where a sweep is; `wakes_at` is when it takes its second look."""

    stage: str
    suspects: int = 0
    wakes_at: datetime | None = None
    done: int = 0
    of: int = 0
