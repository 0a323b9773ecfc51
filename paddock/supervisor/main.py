"""One sandbox's supervisor: spawns the VMM, gives up privilege, and composes channel, fence, tasks and lease.

Its death is the sandbox's death: the VMM has it as parent with PDEATHSIG, and the guest has no other way out.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets as random
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvloop

from paddock.audit.client import AuditClient
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.hosts import Boot, TaskDone
from paddock.contracts.report import Denial
from paddock.contracts.spec import OutputGlob
from paddock.egress.gateway import Gateway
from paddock.host.config import HostConfig
from paddock.host.messages import Answer, Ask
from paddock.microvm.channel.link import Link
from paddock.microvm.channel.messages import Identity
from paddock.microvm.driver import Machine, Place, Support, Template, Vm
from paddock.microvm.jail import give_up_root
from paddock.microvm.qemu.driver import QemuDriver
from paddock.policy.compile import Compiled, deny_all
from paddock.policy.signed import open_signed
from paddock.secrets.client import SecretsClient
from paddock.supervisor import rundir, selftest
from paddock.supervisor.control import Control
from paddock.supervisor.deadline import Deadline
from paddock.supervisor.guest import Guest
from paddock.supervisor.idle import Idle
from paddock.supervisor.ports import FenceSecrets
from paddock.supervisor.services import ServiceEnds
from paddock.supervisor.tasks import UID, Task, Tasks

log = logging.getLogger("paddock.supervisor")
HELLO_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Supervision:
    """Everything that the keeper hands to a new supervisor; uids are None when rootless."""

    boot: Boot
    config: HostConfig
    directory: Path
    output: Path
    machine: Machine
    template: Template
    support: Support
    memory_fd: int
    recorder: socket.socket
    broker: socket.socket
    control: socket.socket
    keeper: socket.socket
    may_ask: frozenset[int]
    uid: int | None
    gid: int | None
    vmm_uid: int | None
    vmm_gid: int | None
    cgroup_procs: tuple[Path, ...]


class Supervisor:
    """Composes one sandbox, and answers its control socket."""

    def __init__(self, args: Supervision) -> None:
        self.args = args
        self.sandbox_id = args.boot.ref.sandbox_id
        self.parts_ms: dict[str, float] = {}
        self.audit = AuditClient(args.recorder)
        self.secrets = SecretsClient(args.broker)
        self.gateway = Gateway(
            sandbox=self.sandbox_id,
            connections=args.config.connections,
            audit=self.audit,
            secrets=FenceSecrets(self.secrets),
            clock=time.time,
        )
        self._began = time.monotonic()
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._ready = asyncio.Event()
        self._digest = ""
        self._awake: set[asyncio.Task[None]] = set()
        self.vm: Vm
        self.link: Link
        self.tasks: Tasks

    async def run(self) -> None:
        """Live until the VM, the channel or the lease ends; leaves the reason in the run directory."""
        args = self.args
        place = Place(
            directory=args.directory / rundir.VMM,
            uid=args.vmm_uid,
            gid=args.vmm_gid,
            cgroup_procs=args.cgroup_procs,
            memory_fd=args.memory_fd,
        )
        self.vm = await QemuDriver(args.machine, args.support).start(args.template, place)
        if args.uid is not None and args.gid is not None and args.vmm_uid is not None:
            give_up_root(args.uid, args.gid, args.vmm_uid)
        self._lap("spawned")
        self.link = await Link.open(self.vm.channel, identity=self._identity(), guest=Guest(self.gateway))
        self.tasks = Tasks(self.link, args.output, self._end)
        self.idle = Idle(self.vm, lambda: self.link.identify(self._identity()))
        deadline = Deadline(args.boot.lease_end, lambda: self._end("the lease ended and nobody renewed it"))
        self.deadline = deadline
        control = Control(self, args.may_ask)
        await control.serve(args.control)
        ends = ServiceEnds(args.keeper, self.audit, self.secrets)
        ends.serve()
        self.vm.exited.add_done_callback(lambda _: self._end("the VMM died"))
        self.link.closed.add_done_callback(lambda closed: self._end(f"the channel closed: {closed.result()}"))
        opening = asyncio.ensure_future(self._open())
        why = await self._over
        opening.cancel()
        self.idle.close()
        self.tasks.lost(why)
        with contextlib.suppress(OSError):  # a full disk must not keep it from ending well
            rundir.write(args.directory / rundir.FAREWELL, rundir.Farewell(why=why))
        self.audit.note("sandbox.ended", detail={"why": why})
        await asyncio.wait([asyncio.ensure_future(self._leave())], timeout=1.0)

    async def _open(self) -> None:
        try:
            await self.vm.loaded()
            self._lap("loaded")
            await asyncio.wait_for(self.link.hello(), HELLO_TIMEOUT_S)
        except (PaddockError, TimeoutError, OSError) as wrong:
            self._end(f"the guest did not come up: {wrong or 'no hello'}")
            return
        self._lap("hello")
        self.idle.begin()
        self._ready.set()

    async def _leave(self) -> None:
        await self.gateway.close()
        await self.audit.drain()

    def _end(self, why: str) -> None:
        if not self._over.done():
            self._over.set_result(why)
            self._ready.set()  # whoever waits for the guest hears why it did not come

    def _lap(self, name: str) -> None:
        self.parts_ms[name] = round((time.monotonic() - self._began) * 1e3, 1)

    def _identity(self) -> Identity:
        return Identity(
            hostname=self.sandbox_id,
            machine_id=random.token_hex(16),
            time_ns=time.time_ns(),
            seed=os.urandom(32),
            ca=self.gateway.ca_pem,
        )

    # what the control socket asks

    async def ready(self) -> Answer:
        """When the guest said hello: how long it took. Its first event is durable before this answers."""
        await self._ready.wait()
        if self._over.done():
            raise PaddockError(ErrorKind.BOOT_FAILED, self._over.result())
        await self.audit.record(
            "sandbox.booted",
            action_id=f"{self.sandbox_id}/boot",
            detail={
                "image": self.args.template.image.digest,
                "accel": self.args.support.accel,
                "parts_ms": dict(self.parts_ms),
            },
        )
        return Answer(parts_ms=self.parts_ms)

    async def attach(self, signed: str) -> Answer:
        """Enforce a policy that the control plane signed for this sandbox, after probes from inside prove the fence."""
        verified = open_signed(signed, self.sandbox_id, self.args.config.policy_key, datetime.now(UTC))
        policy = verified.compiled
        self.audit.policy_digest = policy.digest
        # Recorded before it is in force; whatever goes wrong after that closes the fence again.
        await self.audit.record(
            "policy.attached",
            action_id=f"{self.sandbox_id}/policy/{policy.digest}",
            detail={"digest": policy.digest},
        )
        try:
            if policy.secret_refs:
                await self.secrets.open(signed)
            self.gateway.apply(policy, verified.not_after)
            async with self.idle.awake():
                probes = await selftest.prove_fence(self.link, _an_exact_name(policy))
            await self.audit.record(
                "sandbox.ready", action_id=f"{self.sandbox_id}/ready/{policy.digest}", detail={"probes": probes}
            )
        except BaseException:
            self.gateway.apply(deny_all())
            raise
        self._digest = policy.digest
        return Answer(digest=self.gateway.digest, probes=probes)

    async def run_task(self, ask: Ask, stdin: bytes | None) -> Answer:
        """Start a task; refused before a policy is attached."""
        if not self._digest:
            raise PaddockError(ErrorKind.FENCE_FAILED, "no task may start before a policy is attached")
        assert ask.spec
        if self.tasks.get(ask.task) is None:
            self.audit.note(
                "task.started",
                action_id=f"{self.sandbox_id}/task/{ask.task}",
                detail={
                    "task": ask.task,
                    "argv": [ask.spec.argv[0]],  # arguments may hold what is nobody's business: their digest is kept
                    "argv_sha256": hashlib.sha256("\0".join(ask.spec.argv).encode()).hexdigest(),
                },
            )
        async with self.idle.awake():
            task = self.tasks.start(ask.task, ask.spec, stdin)
            self._keep_awake(task)
        return Answer(started=True)

    def _keep_awake(self, task: Task) -> None:
        async def until_done() -> None:
            async with self.idle.awake():
                await asyncio.shield(task.done)

        keeping = asyncio.get_running_loop().create_task(until_done())
        self._awake.add(keeping)
        keeping.add_done_callback(self._awake.discard)

    async def wait(self, task: int) -> TaskDone:
        """How a task ended, once it has; its end is recorded first."""
        if (known := self.tasks.get(task)) is None:
            raise PaddockError(ErrorKind.INTERNAL, f"there is no task {task}")
        done = await asyncio.shield(known.done)
        result = done.result
        self.audit.note(
            "task.exited",
            action_id=f"{self.sandbox_id}/task/{task}",
            detail={"task": task, "exit": result.exit, "signal": result.signal, "why": result.reason},
        )
        return done

    async def grown(self) -> None:
        await self.tasks.grown()

    def kill(self, task: int) -> Answer:
        if known := self.tasks.get(task):
            known.kill("stopped")
        return Answer()

    async def put(self, path: str, chunks: AsyncIterator[bytes]) -> Answer:
        async with self.idle.awake():
            await self.link.put_files(path, chunks, UID, UID)
        return Answer()

    async def get(self, output: OutputGlob) -> AsyncIterator[bytes]:
        async with self.idle.awake():
            async for part in self.link.get_files("/work", (output.glob,), output.max_bytes):
                yield part

    def change(self, ask: Ask) -> Answer:
        """Small changes: the lease, or what the fence denied so far."""
        if ask.op == "extend" and ask.lease_end:
            longest = datetime.now(UTC) + timedelta(seconds=self.args.config.caps.lifetime_s)
            self.deadline.move(min(ask.lease_end, longest))
            self.audit.note("sandbox.extended", detail={"lease_end": self.deadline.lease_end.isoformat()})
            return Answer()
        if ask.op == "denied":
            rows = self.gateway.denied()
            denied = tuple(Denial(rule=r, host=h, count=n) for r, h, n in rows if not h.endswith(selftest.OWN_PROBES))
            return Answer(denied=denied)
        raise PaddockError(ErrorKind.NOT_ALLOWED, f"{ask.op}: not in this version")


def _an_exact_name(policy: Compiled) -> str | None:
    return next((rule.host for rule in policy.flat.rules if not rule.host.startswith("*")), None)


def supervise(args: Supervision) -> None:
    """Body of the forked process: one event loop, one sandbox."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format=f"%(asctime)s %(levelname)s {args.boot.ref.sandbox_id} %(message)s",
    )

    async def live() -> None:
        await Supervisor(args).run()

    uvloop.run(live())
