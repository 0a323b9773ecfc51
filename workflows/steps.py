"""The `Sandbox` lifecycle as data: do, undo and receipt side by side; a new step gets every test of the harness."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from paddock.contracts.hosts import Attached, Booted, Collected, Placed, Sealed, TaskDone

from workflows.saga import Do, Step, Undo, Where

# Without a slot for so long, the environment's pool of hosts is told that somebody waits.
CALL_FOR_A_HOST_S = 1.0

PLACE = Step(
    "place",
    Do("reserve_slot", Where.SLOTS, Placed, timeout_s=10, attempts=0, start_s=0),
    Undo("release_slot"),
    ("slot",),
)
# Sealed after the VM and its credentials are gone, before the slot is free: nothing can be added to the chain.
SEAL = Step("seal", None, Undo("seal_audit", answer=Sealed))
BOOT = Step(
    "boot",
    Do("boot_sandbox", Where.HOST, Booted, timeout_s=120),
    Undo("destroy_vm"),
    ("supervisor", "vm", "disk", "rundir", "socket"),  # and a cgroup where the host may make one
)
FENCE = Step("fence", Do("attach_policy", Where.HOST, Attached), Undo("revoke_credentials"), ("credential",))
RUN = Step("run", Do("run_task", Where.HOST, TaskDone, attempts=0))
COLLECT = Step("collect", Do("collect_outputs", Where.HOST, Collected, timeout_s=600))

BEFORE_THE_TASK = (PLACE, SEAL, BOOT, FENCE)
