"""Making and ending a host's machine as data: do, undo and receipt side by side, as for a sandbox."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from paddock.contracts.ground import Machine, Proof

from workflows.saga import Do, Step, Undo, Where

CREATE = Step(
    "create",
    Do("create_host", Where.GROUND, Machine, timeout_s=300, heartbeat_s=10, attempts=10, start_s=600),
    Undo("terminate_host", where=Where.GROUND, timeout_s=3600, heartbeat_s=10),
    ("host",),
)
# Over when the provider says that it runs, or that it never will; the host's own first word ends the step.
BOOT = Step("boot", Do("watch_host", Where.GROUND, Machine, timeout_s=7200, heartbeat_s=10, attempts=0, start_s=600))
PROVE = Step("prove", Do("prove_host", Where.HOST_CONTROL, Proof, timeout_s=600, heartbeat_s=10, attempts=2))

MAKING = (CREATE, BOOT, PROVE)
