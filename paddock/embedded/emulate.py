"""Environments on emulated clouds, for trying and for tests: their instances are real hosts on this machine."""

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from temporalio.client import Client
from temporalio.exceptions import TemporalError
from temporalio.service import RPCError

from paddock.contracts import names
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.ground import DrainSpec
from paddock.embedded.parts import Parts, plain_environment, spawn
from paddock.host.config import HostConfig

CLOUDS: Final = ("aws", "azure", "gcp", "onprem")
EMULATOR: Final = "tests.clouds.serve"  # part of a clone, not of the wheels
READY_S: Final = 60.0
GONE_S: Final = 90.0
FIRST_UID: Final = 100_000
UIDS_EACH: Final = 10_000
SLOTS: Final = 2
OF_THE_MACHINE: Final = ("environment", "host", "state", "attempt", "uid_base", "slots")


@dataclass
class Emulated:
    """One environment: its emulator, and the address where that says what exists and what it was asked."""

    name: str
    process: "subprocess.Popen[bytes]"
    observe: str


def chosen(words: str) -> tuple[str, ...]:
    """The clouds in a comma-separated list. Raises PaddockError for another word, or where no emulator is."""
    clouds = tuple(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    for cloud in clouds:
        if cloud not in CLOUDS:
            raise PaddockError(
                ErrorKind.SET_UP, f"{cloud!r} cannot be emulated", field="--emulate", remedy=f"name {', '.join(CLOUDS)}"
            )
    if clouds and importlib.util.find_spec(EMULATOR.partition(".")[0]) is None:
        raise PaddockError(
            ErrorKind.SET_UP,
            "the emulators are not installed",
            field="--emulate",
            remedy="run `make setup` in a clone of Paddock, and its .venv/bin/paddock from there",
        )
    return clouds


async def start(cloud: str, directory: Path, host: HostConfig, address: str, parts: Parts, log: Path) -> Emulated:
    """Start an emulator and the worker of its environment, which keeps a pool of no hosts until a sandbox waits."""
    directory.mkdir(parents=True, exist_ok=True)
    uid = FIRST_UID + CLOUDS.index(cloud) * UIDS_EACH
    argv = [sys.executable, "-m", EMULATOR, cloud, "--home", str(directory / "machines"), "--uids", str(uid)]
    heard, said = os.pipe()
    with os.fdopen(heard, "rb") as reader:
        process = spawn([*argv, "--say", f"/proc/self/fd/{said}"], log / f"{cloud}.log", pass_fds=(said,))
        os.close(said)
        line = await asyncio.wait_for(asyncio.to_thread(reader.readline), READY_S)
    if not line:
        raise PaddockError(ErrorKind.SET_UP, f"the emulator of {cloud} ended", remedy=f"read {log / cloud}.log")
    told: dict[str, Any] = json.loads(line)
    own = host.model_dump(mode="json", exclude=set(OF_THE_MACHINE))
    choices = [{"size": told["size"], "zone": zone} for zone in told["zones"]]
    settings = {
        "environment": cloud,
        "provider": {"kind": cloud, **told["settings"]},
        "pool": {"slots": SLOTS, "size": {"maximum": 2, "idle_s": 30}, "look_s": 5, "choices": choices, "boot_s": 120},
        "host": own | {"slots": SLOTS},
    }
    file = directory / "environment.json"
    file.write_text(json.dumps(settings, indent=2))
    worker = [sys.executable, "-m", "worker.environment", "--address", address, "--config", str(file)]
    environ = plain_environment() | told["environ"]
    parts.add(f"environment-{cloud}", lambda: spawn(worker, log / f"environment-{cloud}.log", environ))
    return Emulated(cloud, process, told["observe"])


async def end_hosts(client: Client, clouds: tuple[str, ...]) -> None:
    """Close the pools and drain every host, until each is proved gone; what takes too long is left to the log."""
    for cloud in clouds:
        await _signal(client, names.pool_workflow_id(cloud), "close")
    deadline = asyncio.get_running_loop().time() + GONE_S
    told = set[str]()
    while asyncio.get_running_loop().time() < deadline:
        open_ = [one for cloud in clouds async for one in _hosts(client, cloud)]
        if not open_:
            return
        for id_ in set(open_) - told:
            await _signal(client, id_, "drain", DrainSpec(reason="paddock up ends", wait_s=0))
            told.add(id_)
        await asyncio.sleep(0.5)


async def _hosts(client: Client, cloud: str) -> Any:
    prefix = names.host_workflow_id(cloud, "")
    query = f'WorkflowType="{names.HOST}" AND ExecutionStatus="Running" AND WorkflowId STARTS_WITH "{prefix}"'
    async for one in client.list_workflows(query):
        yield one.id


async def _signal(client: Client, id_: str, signal: str, *given: object) -> None:
    try:
        await client.get_workflow_handle(id_).signal(signal, args=list(given))
    except (RPCError, TemporalError):  # it is over
        return


def stop(emulated: list[Emulated]) -> None:
    """End the emulators, and with each its machines."""
    for one in emulated:
        one.process.terminate()
    for one in emulated:
        try:
            one.process.wait(20)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
