"""An emulated instance is a real host: a process-id namespace in which `paddock worker host` runs by its user data."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml

from tests.clouds.cloud import Machine

CONFIG = "/etc/paddock/host.json"
UIDS_EACH = 100
CGROUPS = Path("/sys/fs/cgroup")


def told(user_data: str) -> dict[str, Any]:
    """The host's configuration, out of its cloud-init user data. Raises ValueError for user data without one."""
    said = yaml.safe_load(user_data) if user_data.startswith("#cloud-config") else None
    for file in (said or {}).get("write_files", ()):
        if file.get("path") == CONFIG:
            config = json.loads(file["content"])
            assert isinstance(config, dict)
            return config
    raise ValueError("the user data is no cloud-config that writes a host's configuration")


class Hosts:
    """The machines of one emulator, by instance id. What ends one ends every process in it, and what it wrote."""

    def __init__(self, home: Path, first_uid: int) -> None:
        self._home, self._first_uid = home, first_uid
        self._numbers = itertools.count()
        self._running: dict[str, tuple[subprocess.Popen[bytes], Path, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def boot(self, machine: Machine) -> None:
        """Power on: called from the emulator's threads. One without a configuration runs, and never joins."""
        try:
            config = told(machine.user_data)
        except (ValueError, yaml.YAMLError) as wrong:
            print(f"{machine.name}: {wrong}", file=sys.stderr, flush=True)
            return
        number = next(self._numbers)
        place = self._home / f"{number}-{machine.name}"
        (place / "state").mkdir(parents=True)
        os.chmod(place, 0o755)
        config |= {"state": str(place / "state"), "uid_base": self._first_uid + number * UIDS_EACH}
        file = place / "host.json"
        file.write_text(json.dumps(config))
        # All that runs in the machine is in a namespace whose first process is the host: its end is the machine's.
        inside = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"] if os.geteuid() == 0 else []
        with open(place / "log", "wb") as log:
            process = subprocess.Popen(
                [*inside, sys.executable, "-m", "paddock.host", str(file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        with self._lock:
            self._running[machine.id] = (process, place, config)

    def end(self, id: str) -> None:
        """Power off: everything that ran in the machine is gone when this returns."""
        with self._lock:
            known = self._running.pop(id, None)
        if known is None:
            return
        process, place, config = known
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._empty_cgroups(f"{config['environment']}-{config['host']}-")
        if keep := os.environ.get("PADDOCK_KEEP_LOGS"):
            shutil.copy(place / "log", Path(keep) / f"{place.name}.log")
        shutil.rmtree(place, ignore_errors=True)

    def pids(self) -> dict[str, int]:
        """The first process of every machine that runs."""
        with self._lock:
            return {id: process.pid for id, (process, _, _) in self._running.items()}

    def close(self) -> None:
        """End all of them."""
        for id in list(self.pids()):
            self.end(id)

    def _empty_cgroups(self, prefix: str) -> None:
        """A real machine takes its cgroups with it."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            left = [path for path in CGROUPS.glob(f"**/paddock/{prefix}*") if path.is_dir()]
            for path in left:
                try:
                    path.rmdir()
                except OSError:
                    time.sleep(0.02)
            if not left:
                return
