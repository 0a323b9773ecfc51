"""Supervisors of a host: forked from the warm keeper, found again by run directory, and proved gone."""

import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.hosts import Boot
from paddock.contracts.report import Gone, Receipt
from paddock.host.config import HostConfig
from paddock.host.fork import fork
from paddock.host.loop import Loop
from paddock.host.messages import RunRecord
from paddock.host.paths import dial, listen
from paddock.host.processes import Process
from paddock.host.templates import Loaded
from paddock.host.users import Users
from paddock.microvm.cgroup import Cgroup, Limits
from paddock.microvm.driver import Machine
from paddock.supervisor import rundir
from paddock.supervisor.main import Supervision, supervise

VMM_OVERHEAD_MIB = 192
GONE_POLL_S = 0.004
GONE_TRIES = 1000


@dataclass
class Kept:
    """One sandbox of this host, from before its first process to after its last."""

    record: RunRecord
    directory: Path
    process: Process
    cgroup: Cgroup | None
    pidfd: int | None = None
    ending: bool = False
    sockets: list[socket.socket] = field(default_factory=list)

    @property
    def sandbox_id(self) -> str:
        return self.record.ref.sandbox_id

    def vmm(self) -> Process | None:
        try:
            return Process(**_numbers(self.directory / rundir.VM))
        except FileNotFoundError:
            return None


def _numbers(file: Path) -> dict[str, int]:
    record = rundir.VmRecord.model_validate_json(file.read_bytes())
    return {"pid": record.pid, "started": record.started}


class Supervisors:
    """All sandboxes that this host holds; `on_lost` hears of each whose supervisor died unasked."""

    def __init__(
        self, loop: Loop, config: HostConfig, users: Users, machine: Machine, on_lost: Callable[[Kept, str], None]
    ) -> None:
        self._loop, self._config, self._users, self._machine = loop, config, users, machine
        self._on_lost = on_lost
        self.kept: dict[str, Kept] = {}

    def boot(self, boot: Boot, loaded: Loaded, hand: "Hand") -> Kept:
        """Fork the supervisor of `boot`; asked again for the same sandbox, answers the one that is there."""
        sandbox_id = boot.ref.sandbox_id
        if known := self.kept.get(sandbox_id):
            return known
        index = self._free_index()
        directory = self._config.paths.sandbox(sandbox_id)
        record = RunRecord(ref=boot.ref, boot=boot, index=index, created=datetime.now(UTC))
        users = self._users
        supervisor_uid, gid = users.supervisor(index), users.service_gid
        directory.mkdir(mode=0o750)
        rundir.write(directory / rundir.META, record)  # identity comes first
        output = self._config.paths.output / sandbox_id
        output.mkdir(exist_ok=True)
        vmm = directory / rundir.VMM
        vmm.mkdir()
        users.own(directory, supervisor_uid, gid, 0o750)
        users.own(output, supervisor_uid, gid, 0o750)
        users.own(vmm, users.vmm(index), gid, 0o770)
        cgroup = self._cgroup(boot)
        control = listen(directory / rundir.CONTROL, mode=0o660)
        users.own(directory / rundir.CONTROL, supervisor_uid, gid, 0o660)
        keeper = listen(directory / rundir.KEEPER, socket.SOCK_SEQPACKET)
        recorder, broker = hand(record)
        args = Supervision(
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
            uid=supervisor_uid,
            gid=gid,
            vmm_uid=users.vmm(index),
            vmm_gid=users.vmm(index),
            cgroup_procs=tuple(cgroup.procs_files()) if cgroup else (),
        )
        keep = [loaded.memory_fd, recorder.fileno(), broker.fileno(), control.fileno(), keeper.fileno()]
        pid = fork(f"pd-{sandbox_id[3:11]}", lambda: supervise(args), keep, directory / rundir.LOG, directory)
        for sock in (recorder, broker, control, keeper):
            sock.close()
        process = Process.of(pid)
        record = record.model_copy(update={"pid": pid, "started": process.started})
        rundir.write(directory / rundir.META, record)
        kept = Kept(record, directory, process, cgroup)
        self._watch(kept)
        return kept

    def adopt(self) -> None:
        """Find an earlier keeper's sandboxes by their run directories: living ones go on, dead ones are reported."""
        for meta in sorted(self._config.paths.run.glob(f"*/{rundir.META}")):
            try:
                record = RunRecord.model_validate_json(meta.read_bytes())
            except ValueError:
                continue
            cgroup = Cgroup.at(self._cgroup_name(record.ref.sandbox_id))
            kept = Kept(record, meta.parent, Process(record.pid, record.started), cgroup)
            self._watch(kept)

    def replace(self, kept: Kept, recorder: socket.socket | None, broker: socket.socket | None) -> None:
        """Hand a living supervisor new ends to a restarted recorder or broker."""
        import array

        fds = [sock.fileno() for sock in (recorder, broker) if sock]
        which = b"".join(name for name, sock in ((b"r", recorder), (b"b", broker)) if sock)
        try:
            with dial(kept.directory / rundir.KEEPER, socket.SOCK_SEQPACKET) as there:
                there.sendmsg([which], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        except OSError:
            return
        finally:
            for sock in (recorder, broker):
                if sock:
                    sock.close()

    def destroy(self, sandbox_id: str, answer: Callable[[tuple[Receipt, ...]], None]) -> None:
        """Kill all of a sandbox and look until it is gone; answers one receipt for each thing it held."""
        kept = self.kept.get(sandbox_id)
        if kept is None:
            answer(self._receipts(sandbox_id, None, None))
            return
        kept.ending = True
        vmm = kept.vmm()
        self._kill(kept)
        self._until_gone(kept, vmm, answer, GONE_TRIES)

    def died(self, pid: int) -> None:
        """Reap: the pidfd tells who it was."""

    def _kill(self, kept: Kept) -> None:
        kept.process.kill()
        if kept.cgroup:
            kept.cgroup.kill()
        elif (vmm := kept.vmm()) and not self._users.root:
            vmm.kill()

    def _until_gone(
        self, kept: Kept, vmm: Process | None, answer: Callable[[tuple[Receipt, ...]], None], tries: int
    ) -> None:
        vmm = vmm or kept.vmm()
        busy = kept.process.alive() or (vmm is not None and vmm.alive()) or (kept.cgroup and not kept.cgroup.empty())
        if busy and tries:
            if tries % 50 == 0:
                self._kill(kept)
            self._loop.later(GONE_POLL_S, lambda: self._until_gone(kept, vmm, answer, tries - 1))
            return
        if not busy:
            if kept.cgroup:
                kept.cgroup.remove()
            shutil.rmtree(kept.directory, ignore_errors=True)
        answer(self._receipts(kept.sandbox_id, kept, vmm))
        if not kept.directory.exists():
            self._forget(kept)

    def _receipts(self, sandbox_id: str, kept: Kept | None, vmm: Process | None) -> tuple[Receipt, ...]:
        now = datetime.now(UTC)

        def receipt(resource: str, name: str, gone: bool, how: str) -> Receipt:
            return Receipt(
                resource=resource, id=name, gone=Gone.PROVED if gone else Gone.UNPROVED, checked_by=how, at=now
            )

        directory = self._config.paths.sandbox(sandbox_id)
        process = kept.process if kept else Process(0, 0)
        rows = [
            receipt("supervisor", str(process.pid or "-"), not process.alive(), "pid and start time not in /proc"),
            receipt("vm", str(vmm.pid if vmm else "-"), not (vmm and vmm.alive()), "pid and start time not in /proc"),
            receipt("rundir", sandbox_id, not directory.exists(), "directory not found"),
            receipt("socket", sandbox_id, not (directory / rundir.CONTROL).exists(), "control socket not found"),
            receipt("disk", sandbox_id, not (vmm and vmm.alive()), "the writable layer was the VM's memory"),
        ]
        name = self._cgroup_name(sandbox_id)
        if self._users.root:
            rows.append(receipt("cgroup", name, not Cgroup.at(name).exists(), "cgroup directory not found"))
        return tuple(rows)

    def _watch(self, kept: Kept) -> None:
        self.kept[kept.sandbox_id] = kept
        kept.pidfd = kept.process.open()
        if kept.pidfd is None:
            self._loop.later(0, lambda: self._lost(kept))
            return
        self._loop.add(kept.pidfd, lambda: self._lost(kept))

    def _lost(self, kept: Kept) -> None:
        self._unwatch(kept)
        try:
            os.waitpid(kept.process.pid, os.WNOHANG)
        except ChildProcessError:
            pass  # an earlier keeper's child
        if kept.cgroup:
            kept.cgroup.kill()
        if not kept.ending:
            self._on_lost(kept, rundir.why(kept.directory))

    def _unwatch(self, kept: Kept) -> None:
        if kept.pidfd is not None:
            self._loop.remove(kept.pidfd)
            os.close(kept.pidfd)
            kept.pidfd = None

    def _forget(self, kept: Kept) -> None:
        self._unwatch(kept)
        self.kept.pop(kept.sandbox_id, None)
        try:
            os.waitpid(kept.process.pid, os.WNOHANG)
        except ChildProcessError:
            pass

    def _free_index(self) -> int:
        taken = {kept.record.index for kept in self.kept.values()}
        return next(i for i in range(len(taken) + 1) if i not in taken)

    def _cgroup_name(self, sandbox_id: str) -> str:
        return f"{self._config.environment}-{self._config.host}-{sandbox_id}"

    def _cgroup(self, boot: Boot) -> Cgroup | None:
        limits = Limits(
            memory_bytes=(boot.shape.memory_mib + VMM_OVERHEAD_MIB) << 20, pids=64, cpus=float(boot.shape.vcpu)
        )
        try:
            return Cgroup.create(self._cgroup_name(boot.ref.sandbox_id), limits)
        except PermissionError:
            return None
        except OSError as wrong:
            raise PaddockError(ErrorKind.BOOT_FAILED, f"the sandbox's cgroup cannot be made: {wrong}") from wrong


Hand = Callable[[RunRecord], tuple[socket.socket, socket.socket]]
