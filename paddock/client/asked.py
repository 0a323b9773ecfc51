"""What a caller asks for, as one spec: given fields over a given spec, who asks, and where a packed input belongs."""

import getpass
import re
import uuid
from typing import Any, Final

from pydantic import ValidationError

from paddock.client.errors import BadSpec
from paddock.client.failures import bad_spec
from paddock.client.pack import Packed
from paddock.contracts.errors import ErrorInfo, ErrorKind
from paddock.contracts.spec import SandboxSpec

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_REQUEST: Final = re.compile(r"[ -~]{1,200}")


def chosen_name(name: str | None, request_id: str | None) -> str:
    """The name of a new sandbox, a fresh one for None; raises BadSpec with what is allowed."""
    if name is None and request_id is None:
        return uuid.uuid4().hex[:12]
    if name is None or not _NAME.fullmatch(name):
        words = "name: 1 to 100 letters, digits, '.', '_' and '-', a letter or digit first"
        raise _wrong("a request_id needs a name" if name is None else words, ascii((name or "")[:100]))
    if request_id is not None and not _REQUEST.fullmatch(request_id):
        raise _wrong("request_id: 1 to 200 printable ASCII characters", "request_id")
    return name


def _wrong(words: str, field: str) -> BadSpec:
    return BadSpec(ErrorInfo(kind=ErrorKind.BAD_SPEC, message=words, field=field, remedy="choose another"))


def whole_spec(spec: SandboxSpec | None, fields: dict[str, Any], public_key: str, tar: Packed | None) -> SandboxSpec:
    """The whole spec; raises BadSpec with the first wrong field."""
    try:
        whole = SandboxSpec.model_validate({**(dict(spec) if spec else {}), **fields})
        made: dict[str, Any] = {"caller_key": public_key, "owner": whole.owner or _owner()}
        if tar is not None and whole.task is not None:
            made["task"] = whole.task.model_copy(update={"inputs": (*whole.task.inputs, tar.ref)})
        elif tar is not None:
            made["inputs"] = (*whole.inputs, tar.ref)
        return whole.model_copy(update=made)
    except ValidationError as wrong:
        raise bad_spec(wrong) from wrong


def not_compared(spec: SandboxSpec | None, fields: dict[str, Any]) -> frozenset[str]:
    """What two callers of one spec may differ in: each has a key of its own, and an owner unless one was named."""
    named = fields.get("owner") or (spec.owner if spec else "")
    return frozenset({"caller_key"} if named else {"caller_key", "owner"})


def _owner() -> str:
    try:
        return getpass.getuser()[:128]
    except (OSError, KeyError, ImportError):
        return ""  # a user without a name, as in many containers
