"""Connecting to Temporal: an address, a profile, or what the environment says."""

import asyncio
import atexit
import time
from typing import Final

from temporalio.client import Client
from temporalio.envconfig import ClientConfig, ClientConnectConfig

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.names import NAMESPACE
from paddock.temporal.plugin import plugin

# A thread of the SDK's runtime that still lets go of the interpreter when that is taken down aborts the whole process:
# one short-lived client in eight (temporalio/sdk-python issue 300). A moment before it begins is enough for them.
_LET_GO_S: Final = 0.02
atexit.register(time.sleep, _LET_GO_S)


def _load(profile: str | None) -> ClientConnectConfig:
    try:
        return ClientConfig.load_client_connect_config(profile)
    except Exception as wrong:  # the bridge raises its own RuntimeError, TOML and file errors alike
        raise PaddockError(
            ErrorKind.SET_UP,
            f"the Temporal profile cannot be used: {wrong}",
            field=profile or "default",
            remedy="see `temporal config list`, or unset TEMPORAL_PROFILE and TEMPORAL_CONFIG_FILE",
        ) from wrong


def configured(profile: str | None = None) -> str:
    """The address that TEMPORAL_* variables and the TOML profile name; empty when they name none.

    Raises PaddockError SET_UP for a profile that is not there or a file that cannot be read.
    """
    return _load(profile).get("target_host", "")


async def connect(
    address: str | None = None,
    profile: str | None = None,
    namespace: str | None = None,
    identity: str | None = None,
) -> Client:
    """A connected client with Paddock's plugin: to `address` when given, else where TEMPORAL_* or the profile says.

    An explicit address takes nothing from the environment: no key or certificate goes to a server it was not meant for.
    Raises PaddockError SET_UP when nothing names a server, UNREACHABLE when none answers there.
    """
    found: ClientConnectConfig = {"target_host": address} if address else _load(profile)
    where = found.get("target_host", "")
    if not where:
        raise PaddockError(
            ErrorKind.SET_UP,
            "no Temporal server is configured",
            remedy="start one with `paddock up`, or set TEMPORAL_ADDRESS or a profile",
        )
    try:
        return await Client.connect(
            where,
            namespace=namespace or found.get("namespace", NAMESPACE),
            api_key=found.get("api_key"),
            tls=found.get("tls"),
            rpc_metadata=found.get("rpc_metadata", {}),
            identity=identity,
            plugins=[plugin()],
        )
    except (RuntimeError, ValueError) as wrong:
        raise PaddockError(
            ErrorKind.UNREACHABLE,
            f"Temporal does not answer at {where}",
            field=where,
            remedy="is `paddock up` running? `paddock doctor` checks this machine",
        ) from wrong


async def connect_patiently(address: str, namespace: str, identity: str, within_s: float = 60.0) -> Client:
    """As `connect`, for a worker: its server may be starting, or starting again, at the same time as itself."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return await connect(address, namespace=namespace, identity=identity)
        except PaddockError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
