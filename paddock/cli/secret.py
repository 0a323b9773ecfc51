"""`paddock secret`: put values into the embedded store, list their names, remove them. A value is never an argument."""

import getpass
import json
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError

from paddock.cli import codes
from paddock.cli.reach import JsonOption, StateOption
from paddock.client.discover import state_dir
from paddock.contracts.base import Wire
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.secrets.embedded import EmbeddedStore, load_or_make_store_key
from paddock.secrets.store import MAX_VALUE_BYTES, check_name

app = typer.Typer(help="Keep the secrets that the fence puts in.", no_args_is_help=True, add_completion=False)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The name that policies use.")]


class _OpenBao(Wire):
    address: str = ""
    mount: str = "secret"
    prefix: str = "paddock"
    field: str = "value"


class _Choice(Wire):
    kind: str = "embedded"
    file: Path | None = None
    key_file: Path | None = None
    openbao: _OpenBao | None = None


class _Host(Wire):
    """What matters here of the host's configuration, which `paddock up` writes."""

    secrets: _Choice = _Choice()


@app.command("set")
def set_(
    name: _Name,
    file: Annotated[
        Path | None, typer.Option("--file", help="Read the value from this file; one line break at its end goes.")
    ] = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set a secret: by prompt without echo, from --file, or from standard input when it is no terminal."""
    try:
        check_name(name)
        store = _store(state, name)
        store.put(name, _value(name, file))
    except PaddockError as error:
        _fail(error, as_json)
    print(json.dumps({"ok": True, "name": name}) if as_json else f"{name} is set")


@app.command()
def ls(state: StateOption = None, as_json: JsonOption = False) -> None:
    """List names and when each was last set; values are never shown."""
    try:
        names = _store(state).names()
    except PaddockError as error:
        _fail(error, as_json)
    if as_json:
        print(json.dumps([{"name": name, "changed": changed.isoformat()} for name, changed in names]))
        return
    width = max((len(name) for name, _ in names), default=0)
    for name, changed in names:
        print(f"{name:<{width}}  {changed:%Y-%m-%d %H:%M:%S} UTC")
    if not names:
        print("no secrets; `paddock secret set NAME` adds one", file=sys.stderr)


@app.command()
def rm(name: _Name, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Remove a secret; requests that need it are denied from then on, once a lease of ten seconds ends."""
    try:
        removed = _store(state, name).remove(check_name(name))
    except PaddockError as error:
        _fail(error, as_json)
    if not removed:
        _fail(PaddockError(ErrorKind.NOT_FOUND, f"there is no secret {name}", remedy="paddock secret ls"), as_json)
    print(json.dumps({"ok": True, "name": name}) if as_json else f"{name} is removed")


def _store(state: Path | None, name: str = "NAME") -> EmbeddedStore:
    """The store of this state directory; raises PaddockError when it is elsewhere or can't be opened."""
    root = state_dir(state)
    try:
        choice = _Host.model_validate_json((root / "host.json").read_bytes()).secrets
    except FileNotFoundError:
        choice = _Choice()
    except (OSError, ValidationError) as error:
        raise PaddockError(
            ErrorKind.SET_UP, f"{root / 'host.json'} can't be read: {error}", remedy="run as the user of `paddock up`"
        ) from error
    if choice.kind != "embedded":
        bao = choice.openbao or _OpenBao()
        path = f"{bao.mount}/{bao.prefix}/{name}" if bao.prefix else f"{bao.mount}/{name}"
        raise PaddockError(
            ErrorKind.NOT_ALLOWED,
            f"secrets of this environment are in the store at {bao.address}, not here",
            remedy=f"bao kv put {path} {bao.field}=-",
        )
    try:
        key = load_or_make_store_key(choice.key_file or root / "keys" / "secrets.key")
    except OSError as error:
        raise PaddockError(
            ErrorKind.SECRET_UNAVAILABLE,
            f"the key of the secret store can't be read: {error}",
            remedy="run as the user of `paddock up`",
        ) from error
    return EmbeddedStore(choice.file or root / "secrets" / "store.json", key)


def _value(name: str, file: Path | None) -> bytes:
    if file is not None and str(file) != "-":
        try:
            with file.open("rb") as source:
                value = source.read(MAX_VALUE_BYTES + 3)
        except OSError as error:
            raise PaddockError(
                ErrorKind.INPUT_MISSING, f"{file}: {error.strerror}", field="--file", remedy="name a readable file"
            ) from error
    elif file is None and sys.stdin.isatty():
        value = getpass.getpass(f"value of {name} (not shown): ").encode()
        if getpass.getpass("once more: ").encode() != value:
            raise PaddockError(ErrorKind.BAD_SPEC, "the two values differ; nothing was set")
    else:
        value = sys.stdin.buffer.read(MAX_VALUE_BYTES + 3)
    return value.removesuffix(b"\n").removesuffix(b"\r")


def _fail(error: PaddockError, as_json: bool) -> NoReturn:
    if as_json:
        print(json.dumps({"ok": False, "error": error.info.model_dump(mode="json")}))
    else:
        print(error, file=sys.stderr)
    raise typer.Exit(codes.of_error(error.kind))
