"""`paddock up`: Temporal, workers, host and relay on one machine, as one thing that starts, heals and ends."""

import asyncio
import base64
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from temporalio.client import Client
from temporalio.service import RPCError

from paddock.client.discover import Up
from paddock.contracts import names
from paddock.contracts.base import Wire
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.embedded import assets, config, temporal_binary
from paddock.embedded import emulate as emulator
from paddock.embedded.parts import Parts, spawn
from paddock.embedded.server import Ports, TemporalServer
from paddock.embedded.state import State, default_state_dir
from paddock.host.config import HostConfig
from paddock.host.link import KeeperLink
from paddock.host.paths import HostPaths
from paddock.host.users import Users
from paddock.temporal.connect import connect

Say = Callable[[str], None]
ENVIRONMENT: Final = "local"
HOST: Final = "local-1"
READY_S: Final = 90.0
END_S: Final = 60.0
POLL_S: Final = 0.02


class Remembered(Wire):
    """Ports of the last run: a running sandbox's streams are found again where they were."""

    grpc: int
    ui: int
    http: int
    metrics: int
    relay: int


class Embedded:
    """One machine's Paddock. `start`, then `stop`: sandboxes end with receipts before the parts do."""

    def __init__(
        self,
        state: Path,
        operator: config.OperatorConfig,
        *,
        port: int = 0,
        ui_port: int = 0,
        emulate: tuple[str, ...] = (),
        say: Say,
    ) -> None:
        self.state, self.operator, self._say = State(state.absolute()), operator, say
        self._port, self._ui_port, self._clouds = port, ui_port, emulate
        self.emulated: list[emulator.Emulated] = []
        self._parts = Parts()
        self._lock: int | None = None
        self.up: Up
        self.pids: dict[str, int] = {}
        self.client: Client

    async def start(self) -> None:
        """Start every part and wait until a sandbox could start."""
        state, cache = self.state, assets.cache_dir()
        found = assets.load(cache)
        binary = temporal_binary.load(cache)
        self._take_lock()
        for directory in (state.root, state.logs, state.temporal, state.policies, state.secrets, state.host):
            directory.mkdir(parents=True, exist_ok=True)
        policy_key = _keys(state)
        users = Users.here(HostConfig.model_fields["uid_base"].default)
        for owned, mode in ((state.secrets, 0o700), (state.secrets_file, 0o600)):
            if owned.exists():
                users.own(owned, users.broker, None, mode)
        ports, relay_port = self._ports()
        server = TemporalServer(Path(binary.path), state.temporal, ports)
        relay = f"ws://127.0.0.1:{relay_port}"
        host = self._host_config(server.address, relay, policy_key, found)
        state.host_config.write_text(host.model_dump_json(indent=2))
        HostPaths(state.host).worker_ready.unlink(missing_ok=True)
        self._say("starting Temporal, workers, host and relay")
        python, where = [sys.executable, "-m"], ["--address", server.address]
        keys = ["--policies", str(state.policies), "--policy-key", str(state.policy_key)]
        token = ["--port", str(relay_port), "--token-file", str(state.relay_token)]
        # All at once: each worker waits for the server while it reads its own libraries.
        self._parts.add("temporal", server.spawn)
        self._part("keeper", [*python, "paddock.host", str(state.host_config)])
        swept = [word for name in (ENVIRONMENT, *self._clouds) for word in ("--environment", name)]
        self._part("control", [*python, "worker.control", *where, *keys, *swept])
        self._part("relay", [*python, "paddock.relay", *token])
        await server.wait_ready(30)
        await self._until_ready()
        self._part("environment", [*python, "worker.environment", *where, "--environment", ENVIRONMENT])
        self.client = await connect(server.address)
        for cloud in self._clouds:
            self._say(f"starting an emulated {cloud}")
            place = state.root / "emulated" / cloud
            shutil.rmtree(place, ignore_errors=True)  # an emulator that was killed took its machines with it
            started = emulator.start(cloud, place, host, server.address, self._parts, state.logs)
            self.emulated.append(await started)
        self._parts.watch()
        self.up = Up(temporal=server.address, ui=server.ui, relay=relay, pid=os.getpid(), state=str(state.root))
        state.ready.write_text(json.dumps(self.describe()))

    def describe(self) -> dict[str, object]:
        """What `--json` prints: addresses, the process id of every part, the state directory."""
        pids = {"up": os.getpid(), **self._parts.pids(), **self.pids}
        said: dict[str, object] = {**self.up.model_dump(), "pids": pids}
        if self.emulated:
            said["emulated"] = {one.name: one.observe for one in self.emulated}
        return said

    async def stop(self) -> None:
        """End what runs, with receipts, then every part; leaves nothing but the state directory."""
        if self._lock is None:
            return  # another one's state, and nothing was started
        self.state.ready.unlink(missing_ok=True)
        try:
            if hasattr(self, "client"):
                await self._end_sandboxes()
                if self._clouds:
                    self._say("ending the hosts of emulated environments")
                    await emulator.end_hosts(self.client, self._clouds)
        finally:
            try:
                await self._parts.stop()
            finally:
                await asyncio.to_thread(emulator.stop, self.emulated)
                os.close(self._lock)
                self._lock = None

    async def _end_sandboxes(self) -> None:
        deadline = time.monotonic() + END_S
        while time.monotonic() < deadline:
            running = await self._running()
            if not running:
                return
            self._say(f"ending {len(running)} sandbox{'es' if len(running) > 1 else ''}")
            await asyncio.gather(*(self._end(workflow) for workflow in running))
        self._say("some sandboxes did not end in time; the next `paddock up` goes on with them")

    async def _running(self) -> list[str]:
        query = f'WorkflowType="{names.SANDBOX}" AND ExecutionStatus="Running"'
        try:
            return [found.id async for found in self.client.list_workflows(query)]
        except RPCError:
            await asyncio.sleep(0.5)
            return [""]

    async def _end(self, workflow: str) -> None:
        handle = self.client.get_workflow_handle(workflow)
        with contextlib.suppress(RPCError, TimeoutError, Exception):
            await asyncio.wait_for(handle.execute_update("stop", "paddock up ends"), END_S / 2)
        await asyncio.sleep(POLL_S)

    def _take_lock(self) -> None:
        self.state.root.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.state.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            self._lock = None
            raise PaddockError(
                ErrorKind.SET_UP,
                f"another `paddock up` runs on {self.state.root}",
                field="--state",
                remedy="stop it first, or name another state directory",
            ) from None

    def _ports(self) -> tuple[Ports, int]:
        file = self.state.root / "ports.json"
        try:
            last = Remembered.model_validate_json(file.read_bytes())
            ports = Ports(self._port or last.grpc, self._ui_port or last.ui, last.http, last.metrics)
            relay = last.relay
            for wanted in (*ports, relay):
                Ports.free(grpc=wanted)
        except (OSError, ValueError, PaddockError):
            ports, relay = Ports.free(grpc=self._port, ui=self._ui_port), Ports.free().grpc
        remembered = Remembered(grpc=ports.grpc, ui=ports.ui, http=ports.http, metrics=ports.metrics, relay=relay)
        file.write_text(remembered.model_dump_json())
        return ports, relay

    def _host_config(self, temporal: str, relay: str, key: Ed25519PrivateKey, found: assets.Assets) -> HostConfig:
        operator, state = self.operator, self.state
        store = operator.secrets
        if store.kind == "embedded":
            store = store.model_copy(update={"file": state.secrets_file, "key_file": state.secrets_key})
        return HostConfig(
            environment=ENVIRONMENT,
            host=HOST,
            state=str(state.host),
            cache=str(assets.cache_dir()),
            temporal=temporal,
            relay=relay,
            relay_token_file=str(state.relay_token),
            slots=operator.slots,
            connections=operator.connections,
            caps=operator.caps,
            secrets=store,
            policy_public_key=base64.b64encode(key.public_key().public_bytes_raw()).decode(),
            audit_max_bytes=operator.audit_max_bytes,
            default_shape=operator.default_shape,
            kernel=str(operator.kernel or found.kernel),
            qemu=str(operator.qemu or found.qemu),
        )

    def _part(self, name: str, argv: list[str]) -> None:
        self._parts.add(name, lambda: spawn(argv, self.state.logs / f"{name}.log"))

    async def _until_ready(self) -> None:
        paths, deadline = HostPaths(self.state.host), time.monotonic() + READY_S
        while not paths.worker_ready.exists():
            self._parts.check()
            if time.monotonic() > deadline:
                raise PaddockError(
                    ErrorKind.SET_UP,
                    "the host did not come up in time",
                    remedy=f"read {paths.logs} and {self.state.logs}",
                )
            await asyncio.sleep(POLL_S)
        link = KeeperLink(paths, lambda *_: None)
        await link.open()
        try:
            self._say("preparing the template of image base")
            await link.ask("template", image="base", shape=self.operator.default_shape)
            self.pids = (await link.ask("inventory")).pids
        finally:
            await link.close()


def _keys(state: State) -> Ed25519PrivateKey:
    """Keys of the control plane, made once; each file is its owner's only."""
    state.keys.mkdir(mode=0o700, exist_ok=True)
    for file, fresh in (
        (state.policy_key, Ed25519PrivateKey.generate().private_bytes_raw()),
        (state.secrets_key, secrets.token_bytes(32)),
        (state.relay_token, secrets.token_urlsafe(32).encode()),
    ):
        if not file.exists():
            new = file.with_suffix(".new")
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
                out.write(fresh)
            new.replace(file)
    return Ed25519PrivateKey.from_private_bytes(state.policy_key.read_bytes())


def _quiet(_: str) -> None:
    return None


@contextlib.asynccontextmanager
async def embedded(
    state: Path | None = None,
    config_file: Path | None = None,
    *,
    port: int = 0,
    ui_port: int = 0,
    emulate: tuple[str, ...] = (),
    say: Say = _quiet,
) -> AsyncIterator[Embedded]:
    """All parts for the length of a block; on the way out what runs ends with receipts."""
    operator = config.load(config_file)
    here = Embedded(state or default_state_dir(), operator, port=port, ui_port=ui_port, emulate=emulate, say=say)
    try:
        await here.start()
        yield here
    finally:
        await here.stop()


async def run_up(
    state: Path | None,
    config_file: Path | None,
    *,
    port: int,
    ui_port: int,
    emulate: tuple[str, ...],
    ready: Callable[[Embedded], None],
    say: Say,
) -> None:
    """Run until SIGINT or SIGTERM; `ready` is called once everything answers."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with embedded(state, config_file, port=port, ui_port=ui_port, emulate=emulate, say=say) as here:
        ready(here)
        await stop.wait()
