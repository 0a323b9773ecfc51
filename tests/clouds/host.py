"""An emulated instance is a real host: a process-id namespace in which `paddock worker host` runs by its user data."""

import itertools
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import TypeAdapter

from paddock.contracts.ids import EnvironmentName, HostId
from paddock.embedded.parts import spawn
from tests.clouds.cloud import Machine

CONFIG = "/etc/paddock/host.json"
UIDS_EACH = 100
CGROUPS = Path("/sys/fs/cgroup")
OF_THE_MACHINE: Final = frozenset({"environment", "host", "attempt", "state", "uid_base"})
# All that runs in the machine is in a namespace whose first process is the host: its end is the machine's.
MACHINE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL")


def told(user_data: str) -> dict[str, Any]:
    """The host's configuration, out of its cloud-init user data. Raises ValueError for user data without one."""
    try:
        said = yaml.safe_load(user_data) if user_data.startswith("#cloud-config") else None
    except yaml.YAMLError as wrong:
        raise ValueError(f"the user data is no YAML: {wrong}") from None
    files = said.get("write_files") if isinstance(said, dict) else None
    for file in files if isinstance(files, list) else ():
        if isinstance(file, dict) and file.get("path") == CONFIG:
            config = json.loads(str(file.get("content")))
            if isinstance(config, dict):
                return config
    raise ValueError("the user data is no cloud-config that writes a host's configuration")


def check(config: dict[str, Any], template: dict[str, Any]) -> None:
    """Refuse what is not one of this environment's hosts. Raises ValueError that names the keys which differ.

    Whoever reaches the emulator's port may boot machines, and they run as root: what they read and whom they talk to
    is therefore the template's, and only who they are is their own.
    """
    ours, theirs = _compared(template), _compared(config)
    if wrong := sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)):
        raise ValueError(f"{', '.join(wrong)}: not as in the environment's template")
    TypeAdapter(EnvironmentName).validate_python(config.get("environment"))
    TypeAdapter(HostId).validate_python(config.get("host"))


def _compared(table: dict[str, Any]) -> dict[str, str]:
    """As text: Python takes `true` for 1."""
    return {key: json.dumps(value, sort_keys=True) for key, value in table.items() if key not in OF_THE_MACHINE}


class Hosts:
    """The machines of one emulator, by instance id. What ends one ends every process in it, and what it wrote.

    They also end, by SIGKILL, with the thread in which `run` is: let that be the process's main thread.
    """

    def __init__(self, home: Path, first_uid: int, template: dict[str, Any]) -> None:
        self._home, self._first_uid, self._template = home, first_uid, template
        self._numbers = itertools.count()
        self._due: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._wanted: dict[str, tuple[str, dict[str, Any]]] = {}
        self._running: dict[str, tuple[subprocess.Popen[bytes], Path, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def boot(self, machine: Machine) -> None:
        """Power on: called from any thread, done by `run`. One whose configuration is refused runs, and never joins."""
        try:
            config = told(machine.user_data)
            check(config, self._template)
        except ValueError as wrong:
            print(f"{machine.name}: {wrong}", file=sys.stderr, flush=True)
            return
        with self._lock:
            self._wanted[machine.id] = (machine.name, config)
        self._due.put(machine.id)

    def run(self) -> None:
        """Start the machines that were booted, until `over`."""
        while (id := self._due.get()) is not None:
            with self._lock:  # whoever ends it meanwhile waits until there is something to end
                if (wanted := self._wanted.pop(id, None)) is None:
                    continue
                try:
                    self._running[id] = self._start(*wanted)
                except OSError as wrong:
                    print(f"{wanted[0]}: {wrong}", file=sys.stderr, flush=True)

    def over(self) -> None:
        """Let `run` return. A signal's handler may call it."""
        self._due.put(None)

    def end(self, id: str) -> None:
        """Power off: all that ran in the machine is gone when this returns; one that was not started never is."""
        with self._lock:
            self._wanted.pop(id, None)
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
        """End all of them; `run` is over."""
        with self._lock:
            self._wanted.clear()
        for id in list(self.pids()):
            self.end(id)

    def _start(self, name: str, config: dict[str, Any]) -> tuple["subprocess.Popen[bytes]", Path, dict[str, Any]]:
        number = next(self._numbers)
        place = self._home / f"{number}-{re.sub('[^-a-zA-Z0-9]', '_', name)[:80]}"
        (place / "state").mkdir(parents=True)
        os.chmod(place, 0o755)
        config = config | {"state": str(place / "state"), "uid_base": self._first_uid + number * UIDS_EACH}
        file = place / "host.json"
        file.write_text(json.dumps(config))
        process = spawn([*MACHINE, sys.executable, "-m", "paddock.host", str(file)], place / "log")
        return process, place, config

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
