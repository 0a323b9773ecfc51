"""The synchronous twin keeps up: what the asynchronous classes can do under a name, it can do under the same."""

import inspect

import pytest

from paddock.client import connect, run, sandbox, sync

# What only the asynchronous parts need among themselves, or what is an event loop's own.
INNER = {"client", "streams", "end", "ends", "over", "settle", "upload", "delayed_by", "done"}


@pytest.mark.parametrize(
    ("one", "other"),
    [(connect.Paddock, sync.Paddock), (sandbox.Sandbox, sync.Sandbox), (run.Run, sync.Run)],
    ids=["Paddock", "Sandbox", "Run"],
)
def test_every_public_name_has_its_twin_with_the_same_arguments(one: type, other: type) -> None:
    missing = []
    for name, member in inspect.getmembers(one, callable):
        if name.startswith("_") or name in INNER:
            continue
        twin = getattr(other, name, None)
        if twin is None:
            missing.append(name)
            continue
        wanted, has = inspect.signature(member).parameters, inspect.signature(twin).parameters
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in has.values()):
            missing += [f"{name}({parameter})" for parameter in wanted.keys() - has.keys() - {"progress"}]
    assert not missing


def test_what_a_sandbox_says_of_itself_is_the_same() -> None:
    said = {name for name in vars(_sandbox()) if not name.startswith("_")} - INNER - {"report"}
    assert not {name for name in said if f"self.{name}" not in inspect.getsource(sync.Sandbox.__init__)}


def _sandbox() -> sandbox.Sandbox:
    class Handle:
        id = "sandbox/x"

    return sandbox.Sandbox(Handle(), None, "sb-1", "h")  # type: ignore[arg-type]
