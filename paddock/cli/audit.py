"""`paddock audit`: verify evidence offline, and read events as they come."""

import json
import sys
import time
from collections import ChainMap
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from paddock.audit.checkpoint import BadNote, Keys, load_keys
from paddock.audit.event import Line
from paddock.audit.follow import follow
from paddock.audit.live import live, verify_live
from paddock.audit.store import is_sealed, sealed, sealed_path
from paddock.audit.verify import Verdict, verify_sandbox
from paddock.cli import codes
from paddock.cli.reach import JsonOption, StateOption
from paddock.client.discover import state_dir
from paddock.contracts.errors import ErrorKind, PaddockError

app = typer.Typer(help="Verify and read the audit.", no_args_is_help=True, add_completion=False)

_POLL_S = 0.1
_WORST = {"broken": codes.BROKEN, "unknown": codes.CANNOT_TELL, "whole": codes.FINE}
_Sandbox = Annotated[str | None, typer.Argument(metavar="[SANDBOX]", help="Sandbox id; all of them without it.")]


@app.command()
def verify(
    sandbox: _Sandbox = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Evidence of one sandbox: chain.ndjson and checkpoint.")
    ] = None,
    key: Annotated[
        list[Path] | None, typer.Option("--key", help="Public keys (*.vkey); this machine's own without it.")
    ] = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify chains against signed checkpoints, from files and public keys alone.

    Exit 0: whole. 1: broken, with what is wrong. 3: cannot tell (no key, no checkpoint, nothing there).
    """
    root = state_dir(state)
    try:
        keys = _keys(key, root)
        if directory is not None:
            verdicts = [verify_sandbox(directory.absolute(), keys)]
        else:
            verdicts = _of_state(root / "host" / "audit", sandbox, keys)
    except (OSError, BadNote) as error:
        _fail(f"the evidence can't be read: {error}", as_json, codes.CANNOT_TELL)
    if not verdicts:
        _fail(f"there is no evidence of {sandbox or 'any sandbox'} in {root}", as_json, codes.CANNOT_TELL)
    for verdict in verdicts:
        _show(verdict, as_json)
    found = {verdict.state for verdict in verdicts}
    raise typer.Exit(next(_WORST[name] for name in ("broken", "unknown", "whole") if name in found))


def _keys(files: list[Path] | None, root: Path) -> Keys:
    places = files or [root / "host" / "keys"]
    return dict(ChainMap(*(load_keys(path) for path in places)))


def _of_state(directory: Path, sandbox: str | None, keys: Keys) -> list[Verdict]:
    if not directory.is_dir():
        directory.stat()
        return []
    ended = sealed(directory) if sandbox is None else [sandbox] if is_sealed(directory, sandbox) else []
    verdicts = [verify_sandbox(sealed_path(directory, name), keys) for name in ended]
    running = live(directory) if sandbox is None else [] if ended else [sandbox]
    return verdicts + [found for name in running if (found := verify_live(directory, name, keys, time.time()))]


def _show(verdict: Verdict, as_json: bool) -> None:
    if as_json:
        print(
            json.dumps(
                {
                    "sandbox": verdict.sandbox,
                    "state": verdict.state,
                    "events": verdict.events,
                    "head": verdict.head,
                    "problems": list(verdict.problems),
                    "signer": verdict.signer,
                    "signed_at": verdict.signed_at,
                }
            )
        )
        return
    signed = f", signed by {verdict.signer} at {verdict.signed_at}" if verdict.signer else ""
    words = "cannot tell" if verdict.state == "unknown" else verdict.state
    print(f"{_plain(verdict.sandbox)}: {words}, {verdict.events} events{signed}")
    for problem in verdict.problems:
        print(f"  {_plain(problem)}")


@app.command()
def tail(
    sandbox: _Sandbox = None,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Go on as events come, until Ctrl-C.")] = False,
    last: Annotated[int, typer.Option("-n", min=0, help="How many of those there are; 0: all.")] = 20,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show events: time, sandbox, number, kind, decision, rule, and what it was about. --json: the stored lines."""
    directory = state_dir(state) / "host" / "audit"

    def wait() -> bool:
        sys.stdout.flush()
        time.sleep(_POLL_S)
        return True

    more: Callable[[], bool] | None = wait if following else None
    try:
        (directory / "spool").stat()
        for line, event in follow(directory, sandbox, last=last or None, more=more):
            print(_stored(line) if as_json else _words(event))
    except KeyboardInterrupt:
        raise typer.Exit(codes.FINE) from None
    except OSError as error:
        _fail(f"the events can't be read: {error}", as_json, codes.CANNOT_TELL)


def _stored(line: bytes) -> str:
    """The line as it is stored, or, on a terminal, in ASCII: a guest may have put control characters into it."""
    text = line.decode()
    return json.dumps(json.loads(text)) if sys.stdout.isatty() else text


def _words(event: Line) -> str:
    about = event.detail
    what = " ".join(str(about[name]) for name in ("method", "reason", "digest", "what", "why") if about.get(name))
    if about.get("host"):
        port = f":{about['port']}" if about.get("port") else ""
        what = f"{what} {about['host']}{port}{about.get('path') or ''}"
    for name in ("status", "refs", "task", "exit", "signal", "dropped", "events"):
        if about.get(name) not in (None, ""):
            what += f" {name}={about[name]}"
    parts = (event.ts[11:23], event.sandbox, f"#{event.seq}", event.kind, event.decision, event.rule, what.strip())
    return _plain(" ".join(part for part in parts if part))


def _plain(text: str) -> str:
    """Without characters that a terminal would act on."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _fail(words: str, as_json: bool, code: int) -> NoReturn:
    error = PaddockError(ErrorKind.AUDIT_UNAVAILABLE, words, remedy="--state names the directory of `paddock up`")
    if as_json:
        print(json.dumps({"ok": False, "error": error.info.model_dump(mode="json")}))
    else:
        print(error, file=sys.stderr)
    raise typer.Exit(code)
