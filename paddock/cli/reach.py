"""Which Paddock a command talks to: a named server, the environment's, this machine's, or one of its own."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paddock.client.discover import running
from paddock.contracts.errors import ErrorKind, PaddockError

if TYPE_CHECKING:
    from paddock.client.connect import Paddock

AddressOption = Annotated[str | None, typer.Option("--address", help="Temporal's address, before all else.")]
ProfileOption = Annotated[str | None, typer.Option("--profile", help="A profile of Temporal's configuration file.")]
StateOption = Annotated[Path | None, typer.Option("--state", help="State directory of `paddock up`.")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON for other programs instead of words.")]


@asynccontextmanager
async def paddock(address: str | None, profile: str | None, state: Path | None) -> "AsyncIterator[Paddock]":
    """A connected client; raises PaddockError when nothing runs that it could talk to."""
    from paddock.client.connect import Paddock
    from paddock.temporal.quiet import quiet

    quiet()
    async with Paddock.connect(address, profile=profile, state=state) as client:
        yield client


@asynccontextmanager
async def paddock_or_own(
    address: str | None, profile: str | None, state: Path | None, config: Path | None, say: Callable[[str], None]
) -> "AsyncIterator[Paddock]":
    """The same, but with nothing running all parts come up for the length of the block, and end with it."""
    from paddock.temporal.connect import configured
    from paddock.temporal.quiet import quiet

    quiet()
    if address or running(state) or (state is None and configured(profile)):
        async with paddock(address, profile, state) as client:
            yield client
        return
    try:
        from paddock.embedded.up import embedded
    except ImportError as wrong:
        raise PaddockError(
            ErrorKind.SET_UP,
            f"nothing is running, and this machine cannot start it: {wrong}",
            remedy="install `paddock[host]` and `paddock-worker`, or set TEMPORAL_ADDRESS to a Paddock elsewhere",
        ) from wrong
    async with embedded(state, config, say=say) as here, paddock(here.up.temporal, None, None) as client:
        yield client
