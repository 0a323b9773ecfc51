"""Supervisors of a host: forked from the warm keeper, found again by its own records, and proved gone."""

import array
import contextlib
import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.hosts import Boot
from paddock.contracts.report import Gone, Receipt
from paddock.host.config import HostConfig
from paddock.host.fork import fork
from paddock.host.loop import Loop
from paddock.host.messages import RunRecord
from paddock.host.paths import dial, listen
from paddock.host.processes import Process, inside
from paddock.host.remains import Remains
from paddock.host.templates import Loaded
from paddock.host.users import Users
from paddock.microvm.cgroup import Cgroup, Limits
from paddock.microvm.driver import Machine
from paddock.supervisor import rundir
from paddock.supervisor.main import Supervision, supervise

VMM_OVERHEAD_MIB = 192
GONE_POLL_S = 0.004
GONE_TRIES = 1000
# The workflow's timer comes first, then the supervisor's own, then the keeper's: a supervisor that hangs ends too.
GRACE_S = 10.0

Hand = Callable[[RunRecord], tuple[socket.socket, socket.socket]]
Answer = Callable[[tuple[Receipt, ...]], None]


@dataclass
class Kept:
    """One sandbox of this host, from before its first process to after its last."""

    record: RunRecord
    remains: Remains
    pidfd: int | None = None
    ending: bool = False

    @property
    def sandbox_id(self) -> str:
        return self.remains.sandbox_id

    @property
    def process(self) -> Process:
        return self.remains.process


class Supervisors:
    """All sandboxes that this host holds; `on_lost` hears of each whose supervisor died unasked."""

    def __init__(
        self, loop: Loop, config: HostConfig, users: Users, machine: Machine, on_lost: Callable[[Kept, str], None]
    ) -> None:
        self._loop, self._config, self._users, self._machine = loop, config, users, machine
        self._paths = config.paths
        self._on_lost = on_lost
        self.kept: dict[str, Kept] = {}

    def boot(self, boot: Boot, loaded: Loaded, hand: Hand) -> Kept:
        """Fork the supervisor of `boot`; asked again for the same sandbox, answers the one that is there."""
        sandbox_id = boot.ref.sandbox_id
        if known := self.kept.get(sandbox_id):
            return known
        lease_end = self._bounded(boot.lease_end)
        boot = boot.model_copy(update={"lease_end": lease_end})
        record = RunRecord(
            ref=boot.ref,
            boot=boot,
            index=self._free_index(),
            created=datetime.now(UTC),
            lease_end=lease_end,
            deadline=_monotonic(lease_end),
        )
        rundir.write(self._paths.record(sandbox_id), record)  # identity comes first
        kept = Kept(record, self._remains(sandbox_id))
        directory = kept.remains.directory
        self.kept[sandbox_id] = kept
        with contextlib.ExitStack() as ours:
            args = self._make(kept, boot, loaded, hand, ours)
            keep = [args.memory_fd, *(s.fileno() for s in (args.recorder, args.broker, args.control, args.keeper))]
            pid = fork(f"pd-{sandbox_id[3:11]}", lambda: supervise(args), keep, directory / rundir.LOG, directory)
        kept.remains.process = Process.of(pid)
        kept.record = record.model_copy(update={"pid": pid, "started": kept.process.started})
        rundir.write(self._paths.record(sandbox_id), kept.record)
        self._watch(kept)
        return kept

    def adopt(self) -> None:
        """Find an earlier keeper's sandboxes by its records: living ones go on, dead ones are reported."""
        for file in sorted(self._paths.held.glob("*.json")):
            try:
                record = RunRecord.model_validate_json(file.read_bytes())
            except ValueError:
                continue  # cut by a crash before anything of it existed
            kept = Kept(record, self._remains(record.ref.sandbox_id))
            kept.remains.process = Process(record.pid, record.started)
            if not record.pid:  # the keeper died between its two records: whoever works in the directory is it
                kept.remains.process = next(iter(inside(kept.remains.directory)), kept.process)
            self._watch(kept)

    def replace(self, kept: Kept, recorder: socket.socket | None, broker: socket.socket | None) -> None:
        """Hand a living supervisor new ends to a restarted recorder or broker; never waits for it."""
        with contextlib.ExitStack() as ours:
            ends = [ours.enter_context(end) for end in (recorder, broker) if end]
            which = b"".join(name for name, end in ((b"r", recorder), (b"b", broker)) if end)
            try:
                there = ours.enter_context(dial(self._paths.ends(kept.sandbox_id), socket.SOCK_SEQPACKET, wait=False))
                rights = array.array("i", [end.fileno() for end in ends])
                there.sendmsg([which], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            except OSError:
                return

    def extend(self, sandbox_id: str, lease_end: datetime) -> None:
        """Move the keeper's own deadline, within the environment's cap."""
        kept = self.kept.get(sandbox_id)
        if kept is None:
            raise PaddockError(ErrorKind.NOT_FOUND, f"{sandbox_id} is not on this host")
        end = self._bounded(lease_end)
        kept.record = kept.record.model_copy(update={"lease_end": end, "deadline": _monotonic(end)})
        rundir.write(self._paths.record(sandbox_id), kept.record)
        self._expire_later(kept)

    def forget(self, sandbox_id: str) -> None:
        """Remove the output of a sandbox that ended; refused while it is held."""
        if sandbox_id in self.kept:
            raise PaddockError(ErrorKind.NOT_ALLOWED, f"{sandbox_id} is still held")
        shutil.rmtree(self._paths.output / sandbox_id, ignore_errors=True)

    def destroy(self, sandbox_id: str, answer: Answer) -> None:
        """Kill all of a sandbox and look until it is gone; answers one receipt for each thing it may have held."""
        kept = self.kept.get(sandbox_id)
        if kept:
            kept.ending = True
        remains = kept.remains if kept else self._remains(sandbox_id)
        remains.kill()
        self._until_gone(remains, answer, GONE_TRIES)

    def _make(self, kept: Kept, boot: Boot, loaded: Loaded, hand: Hand, ours: contextlib.ExitStack) -> Supervision:
        """Everything of a sandbox but its process; what is only handed over is closed here when `ours` ends."""
        users, index, sandbox_id, directory = self._users, kept.record.index, kept.sandbox_id, kept.remains.directory
        uid, gid = users.supervisor(index), users.service_gid
        output, vmm = self._paths.output / sandbox_id, directory / rundir.VMM
        for made in (directory, output, vmm):
            made.mkdir(mode=0o700)
        control = ours.enter_context(listen(directory / rundir.CONTROL, mode=0o660))
        # Set-gid: what the supervisor writes there belongs to the worker's group, without it being in that group.
        for path, owner, mode in (
            (vmm, users.vmm(index), 0o770),
            (directory / rundir.CONTROL, uid, 0o660),
            (output, uid, 0o2750),
            (directory, uid, 0o2750),
        ):
            users.own(path, owner, gid, mode)
        keeper = ours.enter_context(listen(self._paths.ends(sandbox_id), socket.SOCK_SEQPACKET))
        recorder, broker = map(ours.enter_context, hand(kept.record))
        self._limit(boot)
        return Supervision(
            boot=boot,
            config=self._config,
            directory=Path(),
            output=Path(os.path.relpath(output, directory)),
            machine=self._machine,
            template=loaded.template,
            support=loaded.support,
            memory_fd=loaded.memory_fd,
            recorder=recorder,
            broker=broker,
            control=control,
            keeper=keeper,
            may_ask=users.may_ask,
            uid=uid,
            gid=uid,
            vmm_uid=users.vmm(index),
            vmm_gid=users.vmm(index),
            cgroup_procs=kept.remains.cgroup.procs_files() if kept.remains.cgroup.exists() else (),
        )

    def _until_gone(self, remains: Remains, answer: Answer, tries: int) -> None:
        populated = remains.populated()
        if populated and tries:
            if tries % 50 == 0:
                remains.kill()
            self._loop.later(GONE_POLL_S, lambda: self._until_gone(remains, answer, tries - 1))
            return
        if not populated:
            remains.remove()
        looked = remains.receipts(root=self._users.root)
        if all(receipt.gone is Gone.PROVED for receipt in looked):
            self._forget(remains.sandbox_id)  # the record goes last: only what is proved gone is forgotten
        answer(looked)

    def _watch(self, kept: Kept) -> None:
        self.kept[kept.sandbox_id] = kept
        kept.pidfd = kept.process.open()
        if kept.pidfd is None:
            self._loop.later(0, lambda: self._lost(kept))
            return
        self._loop.add(kept.pidfd, lambda: self._lost(kept))
        self._expire_later(kept)

    def _expire_later(self, kept: Kept) -> None:
        end = kept.record.lease_end
        left = max(0.0, kept.record.deadline - time.monotonic())
        self._loop.later(left + GRACE_S, lambda: self._expire(kept, end))

    def _expire(self, kept: Kept, end: datetime) -> None:
        if kept.pidfd is not None and kept.record.lease_end == end:
            kept.remains.kill()

    def _lost(self, kept: Kept) -> None:
        self._unwatch(kept)
        self._reap(kept)
        kept.remains.cgroup.kill()
        if not kept.ending:
            self._on_lost(kept, rundir.why(kept.remains.directory))

    def _unwatch(self, kept: Kept) -> None:
        if kept.pidfd is not None:
            self._loop.remove(kept.pidfd)
            os.close(kept.pidfd)
            kept.pidfd = None

    def _forget(self, sandbox_id: str) -> None:
        if kept := self.kept.pop(sandbox_id, None):
            self._unwatch(kept)
            self._reap(kept)
        self._paths.record(sandbox_id).unlink(missing_ok=True)

    def _reap(self, kept: Kept) -> None:
        with contextlib.suppress(ChildProcessError):  # an earlier keeper's child, or one that never began
            if kept.process.pid:
                os.waitpid(kept.process.pid, os.WNOHANG)

    def _bounded(self, lease_end: datetime) -> datetime:
        return min(lease_end, datetime.now(UTC) + timedelta(seconds=self._config.caps.lifetime_s))

    def _free_index(self) -> int:
        taken = {kept.record.index for kept in self.kept.values()}
        return next(i for i in range(len(taken) + 1) if i not in taken)

    def _remains(self, sandbox_id: str) -> Remains:
        return Remains(self._paths, sandbox_id, Cgroup.at(self._cgroup_name(sandbox_id)))

    def _cgroup_name(self, sandbox_id: str) -> str:
        return f"{self._config.environment}-{self._config.host}-{sandbox_id}"

    def _limit(self, boot: Boot) -> None:
        limits = Limits(
            memory_bytes=(boot.shape.memory_mib + VMM_OVERHEAD_MIB) << 20, pids=64, cpus=float(boot.shape.vcpu)
        )
        try:
            Cgroup.create(self._cgroup_name(boot.ref.sandbox_id), limits)
        except PermissionError:
            return  # rootless: no cgroup, as docs/limits.md says
        except OSError as wrong:
            raise PaddockError(ErrorKind.BOOT_FAILED, f"the sandbox's cgroup cannot be made: {wrong}") from wrong


def _monotonic(lease_end: datetime) -> float:
    """A lease's end by the clock that never jumps."""
    return time.monotonic() + max(0.0, lease_end.timestamp() - time.time())
