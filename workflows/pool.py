"""`HostPool`: an environment's machines, as many as its sandboxes need; each is a `Host` of its own."""

import asyncio
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError, ChildWorkflowError
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from paddock.contracts import names
    from paddock.contracts.ground import Choice, DrainSpec, HostReport, Wanted
    from paddock.contracts.hosts import HostSpec
    from paddock.contracts.pool import Avoided, Lately, PoolSize, PoolSpec, PoolStatus, PoolView

from workflows.asking import ask
from workflows.saga import seconds
from workflows.sizing import COMING, Resize, capacity, remembered, resize, seen

NO_CAPACITY = "capacity"
NO_WORKER = "no-worker"  # nobody took the step, which says nothing of the choice
SOON = timedelta(seconds=0.2)  # several who need a host come together
MAX_EVENTS = 2000


@workflow.defn(name=names.HOST_POOL, failure_exception_types=[ValidationError])
class HostPool:
    """Looks at hosts and demand, decides, and starts or drains hosts, until it is closed."""

    @workflow.init
    def __init__(self, spec: PoolSpec) -> None:
        if workflow.info().workflow_id != (own := names.pool_workflow_id(spec.environment)):
            raise ApplicationError(f"the pool of {spec.environment} is the workflow {own}", non_retryable=True)
        self.spec, self.memory = spec, spec.memory
        self.view = PoolView()
        self.looked_at: datetime | None = None
        self.woken = self.closed = False

    @workflow.run
    async def run(self, spec: PoolSpec) -> PoolStatus:
        environment = SearchAttributeKey.for_keyword(names.ENVIRONMENT)
        workflow.upsert_search_attributes([environment.value_set(spec.environment)])
        while not self.closed:
            self.woken = False
            await self._look()
            self._show()
            if workflow.cancellation_reason() is not None:  # a signal that was on its way swallows a cancel
                raise asyncio.CancelledError
            try:
                await workflow.wait_condition(
                    lambda: self.woken or self.closed,
                    timeout=seconds(self.spec.look_s),
                    timeout_summary="the next look",
                )
            except TimeoutError:
                pass
            else:
                await workflow.sleep(SOON, summary="others who come together")
            long = workflow.info().get_current_history_length() > MAX_EVENTS
            if not self.closed and (long or workflow.info().is_continue_as_new_suggested()):
                workflow.continue_as_new(self.spec.model_copy(update={"memory": self.memory}))
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self._status()

    async def _look(self) -> None:
        environment = self.spec.environment
        try:
            view = await ask("view_pool", environment, names.CONTROL_QUEUE, PoolView, "hosts, and who waits for one")
        except (ActivityError, ValidationError) as wrong:
            words = f"the look failed: {wrong.__cause__ or wrong}"
            # Whether a host stays superfluous while nobody looks is not known.
            self.memory = self.memory.model_copy(update={"finding": words[:500], "spare_since": ()})
            return
        now = self.looked_at = workflow.now()
        known = remembered(view, self.memory, now)
        self.view = seen(self.spec, view, known, now)
        todo = resize(self.spec, self.view, known, now)
        did = {"spare_since": todo.spare_since, "did": todo.why or known.did, "finding": todo.finding}
        self.memory = known.model_copy(update=did)
        for _ in range(todo.start):
            await self._start(todo)
        for host in todo.drain:
            await self._drain(host, DrainSpec(reason=todo.why, wait_s=todo.wait_s))

    def _note(self, host: str, state: str) -> None:
        new = Lately(host=host, state=state, at=workflow.now())
        self.memory = self.memory.model_copy(update={"lately": (*self.memory.lately, new)})

    async def _start(self, todo: Resize) -> None:
        spec, host = self.spec, f"h-{workflow.uuid4().hex[:12]}"
        wanted = Wanted(
            pool=spec.pool,
            choices=todo.choices,
            boot_s=spec.boot_s,
            prove_s=spec.prove_s,
            lifetime_s=spec.lifetime_s,
        )
        made = await workflow.start_child_workflow(
            names.HOST,
            HostSpec(environment=spec.environment, host=host, slots=spec.slots, wanted=wanted),
            id=names.host_workflow_id(spec.environment, host),
            task_queue=names.CONTROL_QUEUE,
            parent_close_policy=ParentClosePolicy.ABANDON,
            static_summary=f"host {host} of {spec.environment}",
        )
        self._note(host, "recorded")
        made.add_done_callback(partial(self._ended, host))

    def _ended(self, host: str, over: "asyncio.Future[Any]") -> None:
        """A host is no longer on its way, or no longer there; and when it came to nothing, why is known."""
        lately = tuple(one for one in self.memory.lately if one.host != host or one.state not in COMING)
        self.memory = self.memory.model_copy(update={"lately": lately})
        self.woken = True
        failed = None if over.cancelled() else over.exception()
        cause = failed.cause if isinstance(failed, ChildWorkflowError) else None
        if not isinstance(cause, ApplicationError) or not cause.details:
            return
        try:
            report = HostReport.model_validate(cause.details[0])
        except ValidationError:
            return
        if report.grown and report.grown.tried:
            last = report.grown.tried[-1]
            self._leave_alone(last.choice, last.kind, last.why)

    def _leave_alone(self, choice: Choice, kind: str, words: str) -> None:
        if kind == NO_WORKER:
            return
        for_s = self.spec.capacity_s if kind == NO_CAPACITY else self.spec.avoid_s
        new = Avoided(choice=choice, until=workflow.now() + seconds(for_s), why=words[:200])
        others = tuple(one for one in self.memory.avoided if one.choice != choice)
        self.memory = self.memory.model_copy(update={"avoided": (*others, new)[-256:]})

    async def _drain(self, host: str, drain: DrainSpec) -> None:
        known = workflow.get_external_workflow_handle(names.host_workflow_id(self.spec.environment, host))
        self._note(host, "draining")
        try:
            await known.signal("drain", drain)
        except ApplicationError as wrong:  # ExternalWorkflowExecutionNotFound: it ended since the look
            workflow.logger.info("draining %s: %s", host, wrong)

    @workflow.signal(description="From a sandbox that waits for a slot: look now")
    def need(self) -> None:
        self.woken = True

    @workflow.signal(description="From a host: leave this choice alone for a while, and why")
    def avoid(self, choice: Choice, why: str) -> None:
        self._leave_alone(choice, why, why)

    @workflow.signal(description="From a host that changed: look now")
    def changed(self) -> None:
        self.woken = True

    @workflow.signal(description="End the pool; its hosts stay, and drain when they are told to")
    def close(self) -> None:
        self.closed = True

    @workflow.update(description="Set how large the pool may be; answers what it was told last")
    def set(self, size: PoolSize) -> PoolStatus:
        self.spec = self.spec.model_copy(update={"size": size})
        self.woken = True
        return self._status()

    @workflow.query(description="Hosts, demand, what is avoided, and what the pool did last")
    def status(self) -> PoolStatus:
        return self._status()

    def _status(self) -> PoolStatus:
        free, coming = capacity(self.spec, self.view)
        return PoolStatus(
            environment=self.spec.environment,
            size=self.spec.size,
            hosts=self.view.hosts,
            waiting=self.view.waiting,
            free=free,
            coming=coming,
            avoided=self.memory.avoided,
            did=self.memory.did,
            finding=self.memory.finding,
            looked_at=self.looked_at,
        )

    def _show(self) -> None:
        status = self._status()
        rows = {
            "environment": f"`{status.environment}`",
            "hosts": f"{len(status.hosts)} of {status.size.minimum} to {status.size.maximum}",
            "free slots": f"{status.free}, {status.coming} coming, {status.size.free_slots} wanted beyond the demand",
            "waiting": str(status.waiting),
            "did": status.did or "-",
            "finding": status.finding,
        }
        table = "".join(f"| {name}\u00a0 | {value} |\n" for name, value in rows.items() if value)
        workflow.set_current_details(f"| | |\n|---|---|\n{table}")
