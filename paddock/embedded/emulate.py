"""Environments on emulated clouds, for trying and for tests: their instances are real hosts on this machine."""

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

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
    """The clouds in a comma-separated list. Raises PaddockError for another word, where none is, or without root."""
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
    if clouds and os.geteuid() != 0:
        raise PaddockError(
            ErrorKind.SET_UP,
            "emulated machines are namespaces of process ids, and only root makes those",
            field="--emulate",
            remedy="run `paddock up --emulate` as root, or leave --emulate out",
        )
    return clouds


async def start(cloud: str, directory: Path, host: HostConfig, address: str, parts: Parts, log: Path) -> Emulated:
    """Start an emulator and the worker of its environment, which keeps a pool of no hosts until a sandbox waits.

    Raises PaddockError when the emulator does not come up; whatever is raised, it is gone then.
    """
    directory.mkdir(parents=True, exist_ok=True)
    own = host.model_dump(mode="json", exclude=set(OF_THE_MACHINE)) | {"slots": SLOTS}
    template = _template(directory, own)
    uid = FIRST_UID + CLOUDS.index(cloud) * UIDS_EACH
    given = ["--home", str(directory / "machines"), "--uids", str(uid), "--template", str(template)]
    process, told = await _emulator(cloud, given, log / f"{cloud}.log")
    try:
        choices = [{"size": told["size"], "zone": zone} for zone in told["zones"]]
        size = {"maximum": 2, "idle_s": 30}
        settings = {
            "environment": cloud,
            "provider": {"kind": cloud, **told["settings"]},
            "pool": {"slots": SLOTS, "size": size, "look_s": 5, "choices": choices, "boot_s": 120},
            "host": own,
        }
        file = directory / "environment.json"
        file.write_text(json.dumps(settings, indent=2))
        worker = [sys.executable, "-m", "worker.environment", "--address", address, "--config", str(file)]
        environ = plain_environment() | told["environ"]
        parts.add(f"environment-{cloud}", lambda: spawn(worker, log / f"environment-{cloud}.log", environ))
    except BaseException:
        _kill(process)
        raise
    return Emulated(cloud, process, told["observe"])


def _template(directory: Path, own: dict[str, Any]) -> Path:
    """What every machine's configuration must say, for the emulator: its owner's file only."""
    file = directory / "template.json"
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        json.dump(own, out)
    return file


async def _emulator(cloud: str, given: list[str], log: Path) -> tuple["subprocess.Popen[bytes]", dict[str, Any]]:
    """An emulator that is ready, and what it said. Raises PaddockError that names its log, and then it is gone."""
    heard, said = os.pipe()
    with os.fdopen(heard, "rb", buffering=0) as pipe:
        try:
            argv = [sys.executable, "-m", EMULATOR, cloud, *given, "--say", f"/proc/self/fd/{said}"]
            process = spawn(argv, log, pass_fds=(said,))
        finally:
            os.close(said)
        try:
            told = json.loads(await asyncio.wait_for(_line(pipe), READY_S))
            if not isinstance(told, dict):
                raise ValueError("no table")
            return process, told
        except (TimeoutError, ValueError) as wrong:
            how = "says nothing" if isinstance(wrong, TimeoutError) else "ended, or says what cannot be read"
            _kill(process)
            words = f"the emulator of {cloud} {how}"
            raise PaddockError(ErrorKind.SET_UP, words, field="--emulate", remedy=f"read {log}") from None
        except BaseException:
            _kill(process)
            raise


async def _line(pipe: IO[bytes]) -> bytes:
    """What is said first. Read by the loop: a thread that reads cannot be told to stop."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        return await reader.readline()
    finally:
        transport.close()


async def end_hosts(client: Client, clouds: tuple[str, ...]) -> None:
    """Cancel the pools and drain every host, until each is proved gone; what takes too long is left to the log.

    A pool that is cancelled, unlike one that a person closed, is started again by the next `paddock up`.
    """
    pools = [client.get_workflow_handle(names.pool_workflow_id(cloud)) for cloud in clouds]
    deadline = asyncio.get_running_loop().time() + GONE_S
    told, quiet = set[str](), 0
    while asyncio.get_running_loop().time() < deadline:
        try:
            pools = [pool for pool in pools if await _runs(pool)]
            for pool in pools:
                if pool.id not in told:
                    await _unless_over(pool.cancel())
                    told.add(pool.id)
            open_ = [one for cloud in clouds async for one in _hosts(client, cloud)]
            for id_ in set(open_) - told:
                drain = DrainSpec(reason="paddock up ends", wait_s=0)
                await _unless_over(client.get_workflow_handle(id_).signal("drain", drain))
                told.add(id_)
        except RPCError:  # Temporal is away for a moment
            open_ = [""]
        quiet = 0 if pools or open_ else quiet + 1
        if quiet == 2:  # a list of workflows is a little late
            return
        await asyncio.sleep(0.5)


async def _runs(pool: WorkflowHandle[Any, Any]) -> bool:
    try:
        return (await pool.describe()).status is WorkflowExecutionStatus.RUNNING
    except RPCError as wrong:
        if wrong.status is RPCStatusCode.NOT_FOUND:
            return False
        raise


async def _hosts(client: Client, cloud: str) -> AsyncIterator[str]:
    prefix = names.host_workflow_id(cloud, "")
    query = f'WorkflowType="{names.HOST}" AND ExecutionStatus="Running" AND WorkflowId STARTS_WITH "{prefix}"'
    async for one in client.list_workflows(query):
        yield one.id


async def _unless_over(asking: Awaitable[None]) -> None:
    try:
        await asking
    except RPCError as wrong:
        if wrong.status is not RPCStatusCode.NOT_FOUND:
            raise


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End an emulator now; its machines end with it."""
    process.kill()
    process.wait()


def stop(emulated: list[Emulated]) -> None:
    """End the emulators, and with each its machines."""
    for one in emulated:
        one.process.terminate()
    for one in emulated:
        try:
            one.process.wait(20)
        except subprocess.TimeoutExpired:
            _kill(one.process)
