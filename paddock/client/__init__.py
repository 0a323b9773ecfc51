"""The SDK for other services: start sandboxes, run tasks in them, follow their output, keep the receipts."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paddock.client.connect import Paddock as Paddock
    from paddock.client.errors import ClientError as ClientError
    from paddock.client.hosts import Host as Host
    from paddock.client.pool import Pool as Pool
    from paddock.client.run import Run as Run
    from paddock.client.sandbox import Sandbox as Sandbox

_HOMES = {
    "Paddock": "connect",
    "Sandbox": "sandbox",
    "Run": "run",
    "ClientError": "errors",
    "Host": "hosts",
    "Pool": "pool",
}


def __getattr__(name: str) -> object:
    """Imports on first use: a command that only prints its help does not wait for Temporal's library."""
    if name not in _HOMES:
        raise AttributeError(f"module 'paddock.client' has no attribute {name!r}")
    return getattr(import_module(f"paddock.client.{_HOMES[name]}"), name)
