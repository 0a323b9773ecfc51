"""`paddock up`: everything on this machine, until Ctrl-C."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paddock.cli import codes, reach, render

if TYPE_CHECKING:
    from paddock.embedded.up import Embedded


def up(
    state: reach.StateOption = None,
    config: Annotated[Path | None, typer.Option(help="Connections, caps, secret store: a YAML file.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Temporal's port; any free one by default.")] = 0,
    ui_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of Temporal's pages.")] = 0,
    emulate: Annotated[
        str, typer.Option(metavar="CLOUDS", help="Emulated environments beside `local`: aws,azure,gcp,onprem.")
    ] = "",
    json_: Annotated[bool, typer.Option("--json", help="One JSON line once everything is ready.")] = False,
) -> None:
    """Start everything on this machine and print the addresses. Ctrl-C ends the sandboxes with receipts, then the rest.

    A killed one leaves its sandboxes running; the next `paddock up` with the same --state takes them back.
    """
    from paddock.embedded.emulate import chosen
    from paddock.embedded.up import run_up
    from paddock.temporal.quiet import quiet

    quiet()

    def say(words: str) -> None:
        if not json_:
            print(f"paddock: {words}", file=sys.stderr, flush=True)

    async def work() -> int:
        ready = partial(_ready, as_json=json_)
        clouds = chosen(emulate)
        await run_up(state, config, port=port, ui_port=ui_port, emulate=clouds, ready=ready, say=say)
        return codes.FINE

    render.finish(work(), json_, code=lambda _: codes.BROKEN)


def _ready(here: "Embedded", as_json: bool) -> None:
    if as_json:
        print(json.dumps(here.describe()), flush=True)
        return
    rows = [
        ("Temporal", here.up.temporal),
        ("Temporal UI", here.up.ui),
        ("relay", here.up.relay),
        ("state", here.up.state),
        *((f"emulated {one.name}", one.observe) for one in here.emulated),
    ]
    render.table(("part", "where"), rows)
    print("paddock: ready; Ctrl-C ends everything", file=sys.stderr, flush=True)
