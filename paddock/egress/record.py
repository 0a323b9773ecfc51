"""What the fence writes down: intent before the act, outcome after it, denials counted by rule and host."""

import itertools
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from paddock.contracts.errors import PaddockError
from paddock.egress.http.message import Refused, Why
from paddock.egress.ports import AuditPort

INTENT: Final = "egress.intent"
OUTCOME: Final = "egress.outcome"
DENIED: Final = "egress.denied"
DNS_DENIED: Final = "dns.denied"
SECRET_USED: Final = "secret.used"
FINDING: Final = "egress.finding"

_MAX_COUNTED: Final = 1024
_DNS_WINDOW_S: Final = 10.0
_MAX_DNS_NOTES: Final = 64  # names a window


@dataclass(frozen=True, slots=True)
class Subject:
    """What an event is about; `method` and `path` only for HTTP. The query is left out: people put tokens there.

    `host` may be hostile text when nothing was allowed: use `printable`.
    """

    host: str
    port: int
    protocol: str
    method: str = ""
    path: str = ""

    def detail(self, **more: JsonValue) -> dict[str, JsonValue]:
        """The event's own object."""
        about: dict[str, JsonValue] = {"host": self.host, "port": self.port, "protocol": self.protocol}
        if self.method:
            about["method"] = self.method
            about["path"] = self.path
        return about | more


def unrecorded() -> Refused:
    """The denial when nothing can be recorded durably."""
    return Refused(503, Why.AUDIT, "what happens here can't be recorded now, so nothing may happen")


def printable(text: str, limit: int = 253) -> str:
    """Hostile text as short plain ASCII."""
    return "".join(c if " " < c < "\x7f" else "?" for c in text[:limit])


class Recorder:
    """The fence's own words to the audit."""

    def __init__(self, audit: AuditPort) -> None:
        self._audit = audit
        self._start = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._counts: dict[tuple[str, str], int] = {}
        # Names that were only asked for have a table of their own: a flood of them must not hide what was tried.
        self._asked: dict[tuple[str, str], int] = {}
        self._dns_since = float("-inf")
        self._dns_seen: dict[str, int] = {}

    def action_id(self) -> str:
        """A name that joins the events of one act; unique across restarts."""
        return f"{self._start}-{next(self._numbers):x}"

    async def intent(self, action: str, rule: str, subject: Subject, **more: JsonValue) -> None:
        """Durable when it returns; PaddockError otherwise."""
        await self._audit.record(INTENT, decision="allow", rule=rule, action_id=action, detail=subject.detail(**more))

    async def secret_used(self, action: str, rule: str, subject: Subject, refs: Sequence[str]) -> None:
        """Durable when it returns; PaddockError otherwise."""
        detail = subject.detail(refs=list(refs))
        await self._audit.record(SECRET_USED, decision="allow", rule=rule, action_id=action, detail=detail)

    async def denied(self, action: str, rule: str, subject: Subject, refused: Refused) -> Refused:
        """Counts and records a denial; answers what to tell the guest: the denial, or that nothing can be recorded."""
        self._count(rule, subject.host)
        detail = subject.detail(reason=refused.why.value, words=refused.words)
        try:
            await self._audit.record(DENIED, decision="deny", rule=rule, action_id=action, detail=detail)
        except PaddockError:
            return unrecorded()
        return refused

    def outcome(self, action: str, rule: str, subject: Subject, detail: Mapping[str, JsonValue]) -> None:
        """Buffered."""
        self._audit.note(OUTCOME, decision="allow", rule=rule, action_id=action, detail=subject.detail(**detail))

    def narrowed(self, action: str, rule: str, subject: Subject) -> None:
        """Buffered: an open connection was cut because the policy no longer allows it."""
        self._count(rule, subject.host)
        detail = subject.detail(reason=Why.NARROWED.value, words="cut: the policy changed")
        self._audit.note(DENIED, decision="deny", rule=rule, action_id=action, detail=detail)

    def finding(self, action: str, rule: str, subject: Subject, what: str, count: int) -> None:
        """Buffered: something that a person should look at."""
        detail = subject.detail(what=what, count=count)
        self._audit.note(FINDING, rule=rule, action_id=action, detail=detail)

    def dns_denied(self, name: str, qtype: int, now: float) -> None:
        """Counts every refused name; notes each at most once in a window, with how often the last one asked."""
        self._count("", name, self._asked)
        if now - self._dns_since > _DNS_WINDOW_S:
            self._dns_since = now
            self._dns_seen = {}
        before = self._dns_seen.get(name)
        if before is None and len(self._dns_seen) >= _MAX_DNS_NOTES:
            return
        self._dns_seen[name] = (before or 0) + 1
        if before is None:
            total = self._asked.get(("", name), 0)
            detail: dict[str, JsonValue] = {"host": name, "qtype": qtype, "asked": total}
            self._audit.note(DNS_DENIED, decision="deny", action_id=self.action_id(), detail=detail)

    def counts(self) -> list[tuple[str, str, int]]:
        """(rule, host, how often) of everything refused, most frequent first."""
        both = Counter(self._counts)
        both.update(self._asked)
        rows = [(rule, host, count) for (rule, host), count in both.items()]
        return sorted(rows, key=lambda row: (-row[2], row[1], row[0]))

    def _count(self, rule: str, host: str, table: dict[tuple[str, str], int] | None = None) -> None:
        table, key = self._counts if table is None else table, (rule, host)
        if key not in table and len(table) >= _MAX_COUNTED:
            key = ("", "(others)")
        table[key] = table.get(key, 0) + 1
