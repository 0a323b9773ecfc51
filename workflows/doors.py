"""What may be asked of a running sandbox: its updates, queries and signals, and the state they share with its steps."""

from datetime import datetime, timedelta
from urllib.parse import quote

from temporalio import workflow
from temporalio.common import RetryPolicy, SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutError

with workflow.unsafe.imports_passed_through():
    from pydantic import BaseModel, TypeAdapter

    from paddock.contracts import hosts, names
    from paddock.contracts.errors import ErrorInfo, ErrorKind
    from paddock.contracts.ids import sandbox_id
    from paddock.contracts.report import Outcome, Receipt, SandboxReport, TaskResult
    from paddock.contracts.spec import PublicKey, SandboxSpec, TaskSpec
    from paddock.contracts.status import Attachment, State, Status

from workflows import outcome
from workflows.saga import Saga, Where, seconds

# A new control worker plays an open sandbox's history again before it goes on: 0.4 ms an event, 10 s at most. Until
# sessions go on as new runs, tasks are taken up to the first bound, other updates up to the second; `stop` always is.
MAX_EVENTS_FOR_TASKS = 1_300
MAX_EVENTS = 4_000
MAX_KEYS = 64  # the newest ones: each call of a command line is a caller of its own
STATE_KEY = SearchAttributeKey.for_keyword(names.STATE)
# Steps on the way take milliseconds: only states that last are worth a search.
SEARCHED = (State.READY, State.RUNNING, State.ENDING, State.ENDED)
LEASE_KEY = SearchAttributeKey.for_datetime(names.LEASE_END)


class Doors:
    """State of one sandbox's workflow and every handler that reads or changes it."""

    def __init__(self, spec: SandboxSpec) -> None:
        info = workflow.info()
        self.spec, self.state = spec, State.ADMITTED
        self.ref = hosts.SandboxRef(
            sandbox_id=sandbox_id(info.workflow_id, info.first_execution_run_id),
            workflow_id=info.workflow_id,
            run_id=info.first_execution_run_id,
            environment=spec.environment,
            project=spec.project,
            owner=spec.owner,
        )
        self.saga = Saga()
        self.keys: tuple[str, ...] = (spec.caller_key,) if spec.caller_key else ()
        self.booted = False
        self.placed: hosts.Placed | None = None
        self.policy: hosts.ResolvedPolicy | None = None
        self.lease_end: datetime = workflow.now() + timedelta(seconds=spec.lifetime_s)
        self.last_deadline = self.lease_end  # the latest that anything on the host may have been told
        self.host_lost_why = ""  # set while the host does not answer
        self.host_gone_how = ""  # set once: how it is known that the host, and all on it, is gone
        self.finding = ""
        self.end: tuple[Outcome, str] | None = None  # set once: why it ends although its own work is not over
        self.error: ErrorInfo | None = None
        self.tasks: list[TaskSpec] = [spec.task] if spec.task else []
        self.results: list[TaskResult] = []
        self.notes = outcome.Notes()
        self.report: SandboxReport | None = None

    def _queue(self, where: Where) -> str:
        pick = names.host_queue if where is Where.HOST else names.host_control_queue
        return pick(self.ref.environment, self.ref.host)

    def _show(self, state: State) -> None:
        if state in SEARCHED and state is not self.state:
            workflow.upsert_search_attributes([STATE_KEY.value_set(state)])
        self.state = state
        rows = {
            "state": f"**{state}**",
            "sandbox": f"`{self.ref.sandbox_id}`",
            "host": self.ref.host or "-",
            "policy": f"{self.spec.policy} `{self.policy.digest[:19]}`" if self.policy else self.spec.policy,
            "lease ends": self.lease_end.isoformat(timespec="seconds"),
            "audit head": self.notes.audit.head[:16] or "-",
        }
        if self.finding:
            rows["finding"] = self.finding[:500]
        rows["links"] = self._links()
        workflow.set_current_details("| | |\n|---|---|\n" + "".join(f"| {k}\u00a0 | {v} |\n" for k, v in rows.items()))

    def _links(self) -> str:
        """Of the host's workflow and of what else is there; the UI fills in the namespace."""
        environment, host = self.ref.environment, self.ref.host
        workflows = "namespaces/{namespace}/workflows"
        others = f'WorkflowType="{names.SANDBOX}" AND {names.ENVIRONMENT}="{environment}"'
        links = [f"[sandboxes of {environment}]({workflows}?query={quote(others)})"]
        if host:
            links.append(f"[host]({workflows}/{quote(names.host_workflow_id(environment, host), safe='')})")
        return " · ".join(links)

    def _status(self) -> Status:
        return Status(
            sandbox_id=self.ref.sandbox_id,
            workflow_id=self.ref.workflow_id,
            state=self.state,
            environment=self.ref.environment,
            host=self.ref.host,
            relay=self.placed.relay if self.placed else "",
            policy=self.spec.policy,
            policy_digest=self.policy.digest if self.policy else "",
            lease_end=self.lease_end,
            tasks=len(self.tasks),
            owner=self.spec.owner,
            finding=self.finding,
        )

    @workflow.query(description="State, host, policy digest and lease of this sandbox")
    def status(self) -> Status:
        return self._status()

    @workflow.query(description="The receipts so far: what is proved gone, and how it was checked")
    def receipts(self) -> list[Receipt]:
        return list(self.notes.receipts.values())

    @workflow.update(description="End the sandbox, wait until all of it is gone, and answer with the report")
    async def stop(self, reason: str) -> SandboxReport:
        if not self.saga.ending:  # what ends already keeps the name of its end
            self.end = self.end or (Outcome.STOPPED, reason)
        await workflow.wait_condition(lambda: self.report is not None)
        assert self.report
        return self.report

    @stop.validator
    def _stop_says_why(self, reason: str) -> None:
        if not reason.strip() or len(reason) > 1000:
            raise ValueError("reason: say why, in a few words (1 to 1000 characters)")

    @workflow.update(description="Move the end of the lease: seconds from now, in the workflow and in the supervisor")
    async def extend(self, lifetime_s: int) -> Status:
        await workflow.wait_condition(lambda: self.placed is not None or self.saga.ending)
        if self.saga.ending:
            raise ApplicationError("the sandbox is ending", type=ErrorKind.NOT_ALLOWED.value)
        lease_end, before = workflow.now() + timedelta(seconds=lifetime_s), self.last_deadline
        self.last_deadline = max(before, lease_end)  # the host may take it although its answer is lost
        try:
            await self._tell_host("extend_lease", hosts.ExtendLease(ref=self.ref, lease_end=lease_end))
        except ActivityError as wrong:
            if isinstance(wrong.cause, ApplicationError) and wrong.cause.type == ErrorKind.NOT_ALLOWED.value:
                self.last_deadline = max(before, self.lease_end)  # refused in words: nothing on the host was moved
            raise
        if self.policy and self.placed and lease_end > self.lease_end:
            # A signed policy goes stale some time after the lease that it was signed for: sign it for the longer one.
            pinned = f"{self.policy.name}@{self.policy.revision}" if self.policy.revision else self.policy.name
            self.policy = await self._resolve(pinned, lease_end)
            attach = hosts.Attach(ref=self.ref, policy=self.policy)
            await self._tell_host("attach_policy", attach, self._queue(Where.HOST), 60)
        self.lease_end = lease_end
        workflow.upsert_search_attributes([LEASE_KEY.value_set(lease_end)])
        self._show(self.state)
        return self._status()

    @extend.validator
    def _extend_within_bounds(self, lifetime_s: int) -> None:
        if not 30 <= lifetime_s <= 30 * 86400:
            raise ValueError(f"lifetime_s: {lifetime_s} is outside 30 to {30 * 86400}")
        self._refuse_after_the_end()
        self._refuse_beyond(MAX_EVENTS)

    @workflow.update(
        name="run", description="Run one task in a sandbox without a task in its spec; answers the task's number"
    )
    async def run_task(self, task: TaskSpec) -> int:
        self.tasks.append(task)
        return len(self.tasks)

    @run_task.validator
    def _run_one_at_a_time(self, task: TaskSpec) -> None:
        self._refuse_after_the_end()
        if self.spec.task:
            raise ValueError("this sandbox runs the task in its spec and ends; start one without a task")
        if len(self.tasks) > len(self.results):
            raise ValueError(f"task {len(self.tasks)} is not over; one task at a time")
        self._refuse_beyond(MAX_EVENTS_FOR_TASKS)

    @workflow.update(description="Wait until a task is over and answer how it ended")
    async def wait(self, number: int) -> TaskResult:
        await workflow.wait_condition(lambda: len(self.results) >= number or self.saga.ending)
        if len(self.results) < number:
            raise ApplicationError("the sandbox ended before the task was over", type=ErrorKind.SANDBOX_LOST.value)
        return self.results[number - 1]

    @wait.validator
    def _wait_for_a_task_that_is(self, number: int) -> None:
        if not 1 <= number <= len(self.tasks):
            raise ValueError(f"number: there is no task {number}; {len(self.tasks)} so far")

    @workflow.update(
        description="Let a caller's key open this sandbox's streams; answers where they are once it is placed"
    )
    async def attach(self, caller_key: str) -> Attachment:
        await workflow.wait_condition(lambda: self.placed is not None or self.saga.ending)
        if self.placed is None:
            words = self.error.message if self.error else "the sandbox ended before it was placed"
            raise ApplicationError(words, type=(self.error.kind if self.error else ErrorKind.SANDBOX_LOST).value)
        if caller_key not in self.keys:
            await self._tell_host("allow_caller", hosts.AllowCaller(ref=self.ref, caller_key=caller_key))
            if caller_key not in self.keys:  # another attach of the same key may have come first
                self.keys = (*self.keys, caller_key)[-MAX_KEYS:]
        return Attachment(sandbox_id=self.ref.sandbox_id, host=self.placed.host, relay=self.placed.relay)

    @attach.validator
    def _attach_a_key(self, caller_key: str) -> None:
        TypeAdapter(PublicKey).validate_python(caller_key)
        self._refuse_beyond(MAX_EVENTS)

    @workflow.signal(description="From the host: the supervisor or the VMM of this sandbox is gone")
    def sandbox_lost(self, why: str) -> None:
        self._lost(Outcome.SANDBOX_LOST, ErrorKind.SANDBOX_LOST, why)

    @workflow.signal(description="From the host's workflow: the whole host does not answer")
    def host_lost(self, why: str) -> None:
        self.host_lost_why = why
        self._lost(Outcome.HOST_LOST, ErrorKind.HOST_LOST, why)

    @workflow.signal(description="From the host's workflow: the host is proved to be gone, and this is how")
    def host_gone(self, checked_by: str) -> None:
        self.host_gone_how = checked_by
        self._lost(Outcome.HOST_LOST, ErrorKind.HOST_LOST, checked_by)

    def _lost(self, how: Outcome, kind: ErrorKind, why: str) -> None:
        if not self.saga.ending:
            self.end = (how, why)
            self.error = ErrorInfo(kind=kind, message=why)

    def _refuse_beyond(self, events: int) -> None:
        if workflow.info().get_current_history_length() >= events:
            raise ValueError(f"this sandbox's history is full after {len(self.tasks)} tasks; start another sandbox")

    def _refuse_after_the_end(self) -> None:
        if self.saga.ending or self.end:
            raise ValueError("the sandbox is ending")

    async def _resolve(self, policy: str, lease_end: datetime) -> hosts.ResolvedPolicy:
        try:
            resolved: hosts.ResolvedPolicy = await workflow.execute_local_activity(
                "resolve_policy",
                hosts.PolicyRequest(ref=self.ref, policy=policy, image=self.spec.image, lease_end=lease_end),
                result_type=hosts.ResolvedPolicy,
                start_to_close_timeout=seconds(10),
                summary="resolve policy",
            )
        except (ApplicationError, TimeoutError) as wrong:  # a failed local activity raises its bare failure
            raise outcome.local_failure(wrong) from wrong
        return resolved

    async def _tell_host(self, activity: str, argument: BaseModel, queue: str = "", within_s: float = 10) -> None:
        if self.placed is None:
            return
        await workflow.execute_activity(
            activity,
            argument,
            task_queue=queue or self._queue(Where.HOST_CONTROL),
            start_to_close_timeout=seconds(within_s),
            schedule_to_close_timeout=seconds(max(60, within_s)),  # a host that is lost answers nobody
            retry_policy=RetryPolicy(initial_interval=seconds(0.1), maximum_attempts=5),
            summary=activity.replace("_", " "),
        )
