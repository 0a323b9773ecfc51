"""The question that every request is, and the answer."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple


class Question(NamedTuple):
    """One request of the guest: the host as it named it, and for http the method and request target as written.

    A tuple, not a dataclass: one is made for every request.
    """

    host: str
    port: int
    protocol: str
    method: str = ""
    path: str = ""


class Reason(StrEnum):
    """Why a request may pass or not; guests and audit see these words."""

    ALLOWED = "allowed"
    DENIED_BY_RULE = "denied-by-rule"
    UNKNOWN_HOST = "unknown-host"
    UNKNOWN_PORT = "unknown-port"
    NOT_ALLOWED = "not-allowed"
    BAD_HOST = "bad-host"
    BAD_METHOD = "bad-method"
    BAD_PATH = "bad-path"
    SECRET_CONFLICT = "secret-conflict"


@dataclass(frozen=True, slots=True)
class SecretUse:
    """A secret that an allowed request gets, by reference, and where: `header` is lower case."""

    ref: str
    location: Literal["header"]
    header: str
    scheme: Literal["bearer", "header"]


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request may pass, by which rule ("" when none speaks of it), why, and with which secrets."""

    allowed: bool
    rule: str
    reason: Reason
    secrets: tuple[SecretUse, ...] = ()
