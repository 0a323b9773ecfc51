"""Names of workflows, queues, activities and search attributes; the only place that builds them."""

from typing import Final

CONTROL_QUEUE: Final = "control"
NAMESPACE: Final = "default"

SANDBOX: Final = "Sandbox"
HOST: Final = "Host"
HOST_POOL: Final = "HostPool"
POLICY_ROLLOUT: Final = "PolicyRollout"
LATE_READER: Final = "LateReader"
FLEET_CLEANUP: Final = "FleetCleanup"


def ground_queue(environment: str) -> str:
    """Queue of one environment's own worker: cloud calls with that environment's credentials."""
    return f"ground/{environment}"


def slots_queue(environment: str) -> str:
    """Queue that any host of the environment with a free slot pulls from."""
    return f"slots/{environment}"


def host_queue(environment: str, host: str) -> str:
    """Queue of one host: long work in its sandboxes."""
    return f"host/{environment}/{host}"


def host_control_queue(environment: str, host: str) -> str:
    """Queue of one host with slots of its own, so that a full host can still be cleaned."""
    return f"{host_queue(environment, host)}/ctl"


def sandbox_workflow_id(name: str) -> str:
    return f"sandbox/{name}"


def host_workflow_id(environment: str, host: str) -> str:
    return f"host/{environment}/{host}"


def pool_workflow_id(environment: str) -> str:
    """An environment's pool of hosts: one at most."""
    return f"pool/{environment}"


def cleanup_schedule_id(environment: str) -> str:
    """The schedule of an environment's sweeps; its runs carry the time behind this name."""
    return f"fleet-cleanup/{environment}"


def cleanup_workflow_id(environment: str) -> str:
    """The sweep that somebody starts by hand: one at a time."""
    return f"{cleanup_schedule_id(environment)}/by-hand"


PROTECT: Final = "paddock-protect"  # a label: the sweep spares a sandbox that has it, its lease does not

STATE: Final = "PaddockState"
ENVIRONMENT: Final = "PaddockEnvironment"
HOST_ATTRIBUTE: Final = "PaddockHost"
OWNER: Final = "PaddockOwner"
POLICY: Final = "PaddockPolicy"
LEASE_END: Final = "PaddockLeaseEnd"
SEARCH_ATTRIBUTES: Final = {
    STATE: "Keyword",
    ENVIRONMENT: "Keyword",
    HOST_ATTRIBUTE: "Keyword",
    OWNER: "Keyword",
    POLICY: "Keyword",
    LEASE_END: "Datetime",
}
