"""What a sandbox may leave on its host: how to end it, whether anything of it is left, and the receipts that say so."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from paddock.contracts.report import Gone, Receipt
from paddock.host.paths import HostPaths
from paddock.host.processes import Process, inside
from paddock.microvm.cgroup import Cgroup
from paddock.supervisor import rundir

NOBODY = Process(0, 0)


@dataclass
class Remains:
    """Processes, cgroup, run directory and sockets of one sandbox, whether or not each was ever made."""

    paths: HostPaths
    sandbox_id: str
    cgroup: Cgroup
    process: Process = NOBODY

    @property
    def directory(self) -> Path:
        return self.paths.sandbox(self.sandbox_id)

    def kill(self) -> None:
        """SIGKILL to the supervisor, to its cgroup, and to whatever works in its run directory."""
        self.process.kill()
        self.cgroup.kill()
        for process in inside(self.directory):
            process.kill()

    def populated(self) -> bool:
        """Whether any process of it is left, by the kernel's word: its cgroup and working directories."""
        return self.process.alive() or not self.cgroup.empty() or bool(inside(self.directory))

    def remove(self) -> None:
        """Remove what no process uses any more."""
        self.cgroup.remove()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.paths.ends(self.sandbox_id).unlink(missing_ok=True)

    def receipts(self, *, root: bool) -> tuple[Receipt, ...]:
        """One receipt for each thing that it may have held; a look that finds it says `unproved`."""
        now = datetime.now(UTC)
        populated = not self.cgroup.empty() or bool(inside(self.directory))
        sockets = (self.directory / rundir.CONTROL, self.paths.ends(self.sandbox_id))

        def receipt(resource: str, name: str, gone: bool, how: str) -> Receipt:
            looked = Gone.PROVED if gone else Gone.UNPROVED
            return Receipt(resource=resource, id=name, gone=looked, checked_by=how, at=now)

        if self.process.pid:
            how = "pid and start time not in /proc"
            supervisor = receipt("supervisor", str(self.process.pid), not self.process.alive(), how)
        else:
            supervisor = receipt("supervisor", self.sandbox_id, not populated, "no process in its run directory")
        vm = "no process in its run directory" + (" or its cgroup" if root else "")
        rows = [
            supervisor,
            receipt("vm", self.sandbox_id, not populated, vm),
            receipt("disk", self.sandbox_id, not populated, "the writable layer is memory of a VM that is gone"),
            receipt("rundir", self.sandbox_id, not self.directory.exists(), "directory not found"),
            receipt("socket", self.sandbox_id, not any(s.exists() for s in sockets), "no socket of its name found"),
        ]
        if root:
            rows.append(receipt("cgroup", self.cgroup.name, not self.cgroup.exists(), "no cgroup of its name found"))
        return tuple(rows)
