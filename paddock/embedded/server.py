"""The Temporal development server: a process on a file database, on loopback, that ends with its parent."""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.names import NAMESPACE, SEARCH_ATTRIBUTES
from paddock.embedded.ports import LOOPBACK, Ports, is_free, taken

__all__ = ["LOOPBACK", "Ports", "TemporalServer", "taken"]

_PR_SET_PDEATHSIG: Final = 1
_POLL_S: Final = 0.02
_LOG_TAIL: Final = 5

DYNAMIC: Final = {
    # One history shard polls at most 20 times a second by default, which makes each activity take 100 ms.
    "history.transferProcessorMaxPollRPS": "2000",
    # Timers and retry delays are otherwise about a second coarse.
    "history.timerProcessorMaxTimeShift": '"20ms"',
    "system.enableActivityEagerExecution": "true",
    # A workflow task that a control worker had taken when it was killed is given to the next one after this long.
    "history.defaultWorkflowTaskTimeout": '"3s"',
}
"""The development server's settings that Paddock changes, as JSON."""

PRAGMAS: Final = {"journal_mode": "WAL", "synchronous": "NORMAL"}
"""A killed server loses nothing acknowledged; a power cut may lose the last moments of the embedded mode."""


@dataclass(slots=True)
class TemporalServer:
    """One server and its database below `directory`; spawn it again after its death: same ports, same history."""

    binary: Path
    directory: Path
    ports: Ports
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.ports.grpc}"

    @property
    def ui(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.ui}"

    @property
    def log(self) -> Path:
        return self.directory / "temporal.log"

    def spawn(self) -> "subprocess.Popen[bytes]":
        """Starts the server; call it from the main thread, since the server is killed when the calling thread ends.

        Raises PaddockError SET_UP when a port is taken.
        """
        for name, port in zip(
            ("Temporal", "Temporal UI", "Temporal HTTP", "Temporal metrics"), self.ports, strict=True
        ):
            if not is_free(port):
                raise taken(name, port)
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        parent = os.getpid()
        libc = ctypes.CDLL(None, use_errno=True)

        def end_with_parent() -> None:
            # Runs between fork and exec. A parent that died before prctl would never be noticed: look once.
            if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0 or os.getppid() != parent:
                os._exit(1)

        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self.process = subprocess.Popen(
                self._argv(),
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=self._environment(),
                preexec_fn=end_with_parent,
                # Ctrl-C in a terminal goes to a whole process group; whoever started the server decides when it ends.
                start_new_session=True,
            )
        except OSError as error:
            raise PaddockError(
                ErrorKind.SET_UP, f"{self.binary}: {error.strerror}", remedy="run `make setup`"
            ) from None
        finally:
            os.close(descriptor)
        return self.process

    async def wait_ready(self, deadline_s: float = 30.0) -> None:
        """Returns when the server answers gRPC, its namespace exists and its search attributes are registered.

        Raises PaddockError UNREACHABLE with the last lines of its log when it ends or `deadline_s` passes.
        """
        ends = time.monotonic() + deadline_s
        while time.monotonic() < ends:
            if self.process is not None and self.process.poll() is not None:
                raise self._broken(f"ended with {self.process.returncode} while starting")
            with contextlib.suppress(RPCError, RuntimeError, OSError):
                await asyncio.wait_for(self._answers(), max(0.1, ends - time.monotonic()))
                return
            await asyncio.sleep(_POLL_S)
        raise self._broken(f"did not answer within {deadline_s:.0f} s")

    def stop(self, grace_s: float = 5.0) -> None:
        """Ends the server and waits for its death; twice does no harm."""
        process = self.process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    async def _answers(self) -> None:
        client = await Client.connect(self.address, namespace=NAMESPACE)
        known = await client.operator_service.list_search_attributes(ListSearchAttributesRequest(namespace=NAMESPACE))
        if not SEARCH_ATTRIBUTES.keys() <= known.custom_attributes.keys():
            raise RuntimeError("search attributes are still being registered")

    def _broken(self, what: str) -> PaddockError:
        try:
            lines = [line[:300] for line in self.log.read_text(errors="replace").splitlines()[-_LOG_TAIL:]]
        except OSError:
            lines = []
        return PaddockError(
            ErrorKind.UNREACHABLE, "\n  ".join([f"the Temporal server {what}", *lines]), remedy=f"its log: {self.log}"
        )

    def _argv(self) -> list[str]:
        argv = [str(self.binary), "server", "start-dev", "--ip", LOOPBACK, "--ui-ip", LOOPBACK]
        argv += ["--port", str(self.ports.grpc), "--ui-port", str(self.ports.ui)]
        argv += ["--http-port", str(self.ports.http), "--metrics-port", str(self.ports.metrics)]
        argv += ["--db-filename", str(self.directory / "temporal.sqlite"), "--namespace", NAMESPACE]
        argv += [part for name, value in PRAGMAS.items() for part in ("--sqlite-pragma", f"{name}={value}")]
        argv += [part for name, value in DYNAMIC.items() for part in ("--dynamic-config-value", f"{name}={value}")]
        argv += [part for name, kind in SEARCH_ATTRIBUTES.items() for part in ("--search-attribute", f"{name}={kind}")]
        return [*argv, "--ui-disable-news-fetch", "--log-level", "warn", "--log-format", "json", "--color", "never"]

    def _environment(self) -> dict[str, str]:
        # Profiles and TEMPORAL_* of the user are about their own server, not about this one.
        kept = {name: os.environ[name] for name in ("PATH", "TZ", "SSL_CERT_FILE") if name in os.environ}
        # Without a name for its uid the server does not start; a uid without an entry in passwd has none.
        return {**kept, "HOME": str(self.directory), "USER": os.environ.get("USER") or "paddock"}
