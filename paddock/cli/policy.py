"""`paddock policy`: check a document, explain a decision, apply a document to the control plane."""

import asyncio
import getpass
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from paddock.cli import codes
from paddock.cli.reach import AddressOption, ProfileOption, StateOption, paddock
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.policies import PolicyApplied

if TYPE_CHECKING:
    from paddock.policy.compile import Compiled
    from paddock.policy.problems import PolicyError

app = typer.Typer(help="Check, explain and apply policies.", no_args_is_help=True, add_completion=False)

_MAX_FILE = 1 << 20
_Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of words.")]
_File = Annotated[str, typer.Argument(metavar="FILE", help="A policy document, or - for standard input.")]


class Expected(StrEnum):
    """What a caller of `explain` says should come out."""

    ALLOW = "allow"
    DENY = "deny"


@app.command()
def check(file: _File, as_json: _Json = False) -> None:
    """Check a document: every problem with its line and column. Exit 0 when it is fine, 1 when not."""
    text, shown = _read(file, as_json)
    compiled = _compiled(text, shown, as_json)
    flat = compiled.flat
    refs = sorted(compiled.secret_refs)
    if as_json:
        _print_json(
            {
                "ok": True,
                "file": shown,
                "name": flat.name,
                "digest": compiled.digest,
                "rules": len(flat.rules),
                "secrets": refs,
                "problems": [],
            }
        )
    else:
        held = f", secrets {', '.join(refs)}" if refs else ""
        print(f"{shown}: fine. Policy '{flat.name}', {len(flat.rules)} rules{held}")


@app.command()
def explain(
    file: _File,
    url: Annotated[str, typer.Argument(metavar="URL", help="https://host/path, http://…, tls://host:port, tcp://….")],
    method: Annotated[str, typer.Option("--method", "-X", help="The request's method.")] = "GET",
    expect: Annotated[Expected | None, typer.Option(help="Exit 1 when the decision is another.")] = None,
    as_json: _Json = False,
) -> None:
    """Say whether a request would pass under FILE, by which rule (file and line), and with which secrets."""
    from paddock.policy.explain import explain as explained
    from paddock.policy.explain import question_of

    text, shown = _read(file, as_json)
    compiled = _compiled(text, shown, as_json)
    try:
        found = explained(compiled, question_of(method, url))
    except PaddockError as error:
        _fail(error, as_json, codes.WRONG_USE)
    decision = found.decision
    verdict = Expected.ALLOW if decision.allowed else Expected.DENY
    if as_json:
        _print_json(
            {
                "allowed": decision.allowed,
                "reason": decision.reason.value,
                "rule": decision.rule,
                "file": found.file,
                "line": found.line,
                "secrets": [
                    {"ref": use.ref, "in": use.location, "name": use.header, "as": use.scheme}
                    for use in decision.secrets
                ],
                "words": found.words,
            }
        )
    else:
        place = f"\n  {found.file}:{found.line}" if found.line else ""
        print(f"{verdict.value}: {found.words}{place}")
    if expect is not None and expect is not verdict:
        raise typer.Exit(codes.BROKEN)


@app.command()
def apply(
    file: _File,
    author: Annotated[str, typer.Option(help="Who applies it; the default is who is logged in.")] = "",
    address: AddressOption = None,
    profile: ProfileOption = None,
    state: StateOption = None,
    as_json: _Json = False,
) -> None:
    """Apply a document: it becomes the newest revision of its name. The same text again keeps its revision."""
    text, shown = _read(file, as_json)
    _compiled(text, shown, as_json)

    async def send() -> PolicyApplied:
        async with paddock(address, profile, state) as client:
            return await client.apply_policy(text, shown, author or _login())

    try:
        applied = asyncio.run(send())
    except PaddockError as error:
        _fail(error, as_json, codes.of_error(error.kind))
    if as_json:
        _print_json(
            {"ok": True, "name": applied.name, "revision": applied.revision, "digest": applied.digest, "file": shown}
        )
    else:
        print(f"{applied.name}@{applied.revision} applied ({applied.digest})")


def _read(file: str, as_json: bool) -> tuple[str, str]:
    """(text, name to show) of the document; exits 2 when it cannot be read."""
    try:
        data = sys.stdin.buffer.read(_MAX_FILE + 1) if file == "-" else Path(file).read_bytes()
    except OSError as error:
        words = f"{file}: {error.strerror}"
        _fail(
            PaddockError(ErrorKind.INPUT_MISSING, words, remedy="Name a readable policy document."),
            as_json,
            codes.WRONG_USE,
        )
    # Bytes that are no UTF-8 become lone surrogates, which the parser reports with their line.
    return data.decode("utf-8", "surrogateescape"), "<stdin>" if file == "-" else file


def _compiled(text: str, shown: str, as_json: bool) -> "Compiled":
    try:
        from paddock.policy.compile import compile_policy
        from paddock.policy.document import parse
    except ImportError as error:
        remedy = "Install it with: pip install 'paddock[host]'"
        _fail(
            PaddockError(ErrorKind.SET_UP, f"reading policies needs {error.name}", remedy=remedy),
            as_json,
            codes.WRONG_USE,
        )
    from paddock.policy.problems import PolicyError

    try:
        return compile_policy(parse(text, shown))
    except PolicyError as error:
        _show_problems(error, as_json)
    raise typer.Exit(codes.BROKEN)


def _show_problems(error: "PolicyError", as_json: bool) -> None:
    if as_json:
        problems = [{"line": p.line, "column": p.column, "message": p.message} for p in error.problems]
        _print_json({"ok": False, "file": error.file, "problems": problems})
        return
    for problem in error.problems:
        print(f"{error.file}:{problem.line}:{problem.column}: {problem.message}", file=sys.stderr)
    count = len(error.problems)
    print(f"{error.file}: {count} {'problem' if count == 1 else 'problems'}", file=sys.stderr)


def _fail(error: PaddockError, as_json: bool, code: int) -> NoReturn:
    if as_json:
        _print_json({"ok": False, "error": error.info.model_dump(mode="json")})
    else:
        print(error, file=sys.stderr)
    raise typer.Exit(code)


def _print_json(value: dict[str, object]) -> None:
    print(json.dumps(value, ensure_ascii=False))


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
