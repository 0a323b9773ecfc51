"""The system under fault: one `paddock up` on one state, its store, its upstream servers, and what kills its parts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Up
from tests.e2e.fence import SECRET, Servers, servers
from tests.faults.plan import Fault, Plan, Victim
from tests.observer import snapshot
from tests.observer.processes import MONITORS, Process, processes
from tests.observer.services import services, working_in
from tests.secrets.rig import Bao

APPEARS_S = 12.0
BACK_S = 30.0
STARTS = 3


@dataclass
class Blow:
    """What became of one fault: when it struck and whom, and how long its victim was away."""

    fault: Fault
    at_s: float = 0.0
    pid: int = 0
    recovered_s: float | None = None
    wrong: str = ""

    def __str__(self) -> str:
        if not self.pid:
            return f"{self.fault}: {self.wrong or 'found no such process'}"
        back = f", back after {self.recovered_s:.2f} s" if self.recovered_s is not None else ""
        return f"{self.fault}: pid {self.pid} at {self.at_s:.2f} s{back}{self.wrong and f': {self.wrong}'}"


@dataclass
class System:
    """A running Paddock; `up` is another process after each kill of the parent, on the same state and ports."""

    up: Up
    fence: Servers
    bao: Bao
    hurt: dict[int, float] = field(default_factory=dict)
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def state(self) -> Path:
        return self.up.state

    @property
    def address(self) -> str:
        return str(self.up.info["temporal"])

    @property
    def parent(self) -> int:
        return int(str(self.up.info["pid"]))

    def sandbox_of(self, workflow: str) -> str:
        """The sandbox of a workflow by the keeper's own record, once it has one."""
        for file in (self.state / "host" / "held").glob("sb-*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                if json.loads(file.read_text())["ref"]["workflow_id"] == workflow:
                    return file.stem
        return ""

    def find(self, victim: Victim, workflow: str) -> Process | None:
        """The process of a part now."""
        known = processes()
        if victim not in (Victim.SUPERVISOR, Victim.VMM):
            return next(iter(services(self.parent, known).get(victim, ())), None)
        if not (sandbox := self.sandbox_of(workflow)):
            return None
        inside = working_in(self.state / "host" / "run" / sandbox, known)
        monitors = [process for process in inside if Path(process.exe).name.startswith(MONITORS)]
        if victim is Victim.VMM:
            return next(iter(monitors), None)
        pids = {process.pid for process in inside}
        return next((p for p in inside if p.name.startswith("pd-") and p.parent not in pids), None)

    async def strike(self, fault: Fault, begin: float, workflow: str, over: asyncio.Future[Any]) -> Blow:
        """Strike the victim once it is there, and see it back; `over`: it will not come any more."""
        blow = Blow(fault)
        deadline = time.monotonic() + APPEARS_S
        while (victim := self.find(fault.victim, workflow)) is None:
            if time.monotonic() > deadline or over.done():
                return blow
            await asyncio.sleep(0.02)
        try:
            handle = os.pidfd_open(victim.pid)
        except ProcessLookupError:
            blow.wrong = "it died by itself, just before"
            return blow
        try:
            blow.pid, blow.at_s = victim.pid, time.monotonic() - begin
            if fault.stop_s:
                signal.pidfd_send_signal(handle, signal.SIGSTOP)
                await asyncio.sleep(fault.stop_s)
                signal.pidfd_send_signal(handle, signal.SIGCONT)
                return blow
            if fault.victim in (Victim.SUPERVISOR, Victim.VMM):
                self.hurt.setdefault(fault.sandbox, time.monotonic())
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            return blow
        finally:
            os.close(handle)
        await self._back(blow, victim, time.monotonic())
        return blow

    async def _back(self, blow: Blow, victim: Process, killed: float) -> None:
        part = blow.fault.victim
        if part in (Victim.SUPERVISOR, Victim.VMM):
            return  # it never comes back: its sandbox's end is what counts
        if part is Victim.UP:
            try:
                await self.restart()
            except AssertionError as wrong:
                blow.wrong = f"{STARTS} times: {wrong}"
            blow.recovered_s = time.monotonic() - killed
            return
        while time.monotonic() < killed + BACK_S:
            now = self.find(part, "")
            if now is not None and now.key != victim.key:
                blow.recovered_s = time.monotonic() - killed
                return
            await asyncio.sleep(0.02)
        blow.wrong = f"the {part} did not come back within {BACK_S:.0f} s"

    async def restart(self) -> None:
        """`paddock up` again on the same state, once its killed parent is gone."""
        async with self._starting:
            assert self.up.process
            if self.up.process.poll() is None:
                await asyncio.to_thread(self.up.process.wait, 20)
            for left in reversed(range(STARTS)):
                try:
                    await asyncio.to_thread(self.up.start)
                    return
                except AssertionError:  # a part that was struck while it started: `paddock up` says so and ends
                    if not left:
                        raise

    def keep_logs(self, plan: Plan, where: Path) -> Path:
        """Copy every log of this state to a folder of the run's own."""
        target = where / str(plan.number)
        shutil.rmtree(target, ignore_errors=True)
        for name in ("logs", "host/logs", "host/run", "host/held", "host/worker", "host/output", "host/audit"):
            with contextlib.suppress(OSError, shutil.Error):
                shutil.copytree(self.state / name, target / name, ignore=_sockets, dirs_exist_ok=True)
        return target

    def end(self) -> None:
        """End all of it by force: for a state in which something was left over."""
        if self.up.process and self.up.process.poll() is None:
            self.up.process.kill()
            self.up.process.wait()
        while left := working_in(self.state / "host" / "run"):
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        for group in _groups({path.stem for path in (self.state / "host" / "held").glob("sb-*")}):
            with contextlib.suppress(OSError):
                group.rmdir()


def _groups(sandboxes: set[str]) -> list[Path]:
    """Control groups of these sandboxes, wherever the system made them."""
    return [
        Path(trace.id.rpartition(" ")[0])
        for trace in snapshot(()).of("cgroup")
        if any(trace.id.rpartition(" ")[0].endswith(name) for name in sandboxes)
    ]


def _sockets(directory: str, names: list[str]) -> list[str]:
    return [name for name in names if not ((path := Path(directory, name)).is_file() or path.is_dir())]


@contextlib.contextmanager
def outside(directory: Path) -> Iterator[tuple[Servers, Bao]]:
    """The upstream servers and the secret store, which live longer than any one state."""
    place = directory / "outside"
    place.mkdir()
    bao = Bao(place)
    try:
        bao.role("paddock-sandbox", "reads", token_ttl="60s", token_explicit_max_ttl="600s")
        bao.put("api-token", SECRET)
        (place / "jwt.pem").touch(mode=0o600)
        (place / "jwt.pem").write_bytes(bao.pem)
        store = {"address": bao.address, "reaper_role": "paddock-reaper", "timeout_s": 2.0, "cache_s": 1.0}
        secrets = {"kind": "openbao", "openbao": store, "jwt_key_file": str(place / "jwt.pem")}
        with servers(place, secrets=secrets) as fence:
            yield fence, bao
    finally:
        bao.close()


def fresh(directory: Path, fence: Servers, bao: Bao) -> System:
    """A new state with everything up and the fence's policy applied."""
    up = Up(directory, fence.config).start()
    up.run("policy", "apply", str(fence.policy), check=True)
    return System(up, fence, bao)
