"""The supervisor's way to the recorder: `record` waits until the event is durable, `note` does not wait."""

import asyncio
import secrets
import socket
from collections.abc import Mapping

from pydantic import JsonValue

from paddock.audit.event import AuditUnavailable
from paddock.packets.client import PATIENCE_S, Answer, PacketClient, Unanswered

MAX_NOTES = 1024
GAP_EVERY_S = 0.5


class AuditClient:
    """One sandbox's events. Made inside a running loop; the socket says which sandbox it is.

    `policy_digest` is stamped on every event: set it when a policy is attached.
    """

    def __init__(self, sock: socket.socket, *, patience_s: float = PATIENCE_S) -> None:
        self.policy_digest = ""
        self._packets = PacketClient(sock, server="recorder", patience_s=patience_s)
        self._loop = asyncio.get_running_loop()
        self._prefix = secrets.token_hex(6)
        self._made = 0
        self._notes: set[asyncio.Future[Answer]] = set()
        self._dropped = 0
        self._gap: asyncio.TimerHandle | None = None

    @property
    def dropped(self) -> int:
        """Buffered events that were dropped and are not yet counted in a gap event."""
        return self._dropped

    async def record(
        self,
        kind: str,
        *,
        decision: str = "",
        rule: str = "",
        action_id: str = "",
        detail: Mapping[str, JsonValue] | None = None,
    ) -> None:
        """Returns once the event is on disk; raises AuditUnavailable, and then the action must not happen."""
        try:
            answer = await self._ask("strict", kind, decision, rule, action_id, detail)
        except Unanswered as unanswered:
            raise AuditUnavailable(str(unanswered)) from unanswered
        if "seq" not in answer:
            raise AuditUnavailable(str(answer.get("error", "no answer")))

    def note(
        self,
        kind: str,
        *,
        decision: str = "",
        rule: str = "",
        action_id: str = "",
        detail: Mapping[str, JsonValue] | None = None,
    ) -> None:
        """Buffers the event; when it must be dropped it is counted, and the count becomes an `audit.gap` event."""
        if len(self._notes) >= MAX_NOTES:
            self._drop(1)
            return
        future = self._ask("buffer", kind, decision, rule, action_id, detail)
        self._notes.add(future)
        future.add_done_callback(self._noted)

    async def drain(self) -> None:
        """Wait until every buffered event is durable, or counted in a durable gap; raises AuditUnavailable."""
        while self._notes or self._dropped:
            if self._notes:
                await asyncio.wait(set(self._notes))
                continue
            try:
                answer = await self._send_gap()
            except Unanswered as unanswered:
                raise AuditUnavailable(str(unanswered)) from unanswered
            if "seq" not in answer:
                raise AuditUnavailable(str(answer.get("error", "no answer")))

    def replace(self, sock: socket.socket) -> None:
        """The recorder was replaced: use its new socket, and say again what was not answered."""
        self._packets.replace(sock)

    def close(self) -> None:
        """Close the socket; every waiter gets AuditUnavailable."""
        self._packets.close()
        if self._gap is not None:
            self._gap.cancel()
            self._gap = None

    def _ask(
        self,
        mode: str,
        kind: str,
        decision: str,
        rule: str,
        action_id: str,
        detail: Mapping[str, JsonValue] | None,
    ) -> "asyncio.Future[Answer]":
        event = {
            "kind": kind,
            "decision": decision,
            "rule": rule,
            "action_id": action_id or self._new_id(),
            "policy_digest": self.policy_digest,
            "detail": dict(detail or {}),
        }
        return self._packets.request({"mode": mode, "event": event})

    def _new_id(self) -> str:
        self._made += 1
        return f"{self._prefix}-{self._made}"

    def _noted(self, future: "asyncio.Future[Answer]") -> None:
        self._notes.discard(future)
        if future.cancelled() or future.exception() is not None or "seq" not in future.result():
            self._drop(1)

    def _drop(self, count: int) -> None:
        self._dropped += count
        if self._gap is None:
            self._gap = self._loop.call_later(GAP_EVERY_S, self._report)

    def _report(self) -> None:
        self._gap = None
        if self._dropped:
            self._send_gap()

    def _send_gap(self) -> "asyncio.Future[Answer]":
        count, self._dropped = self._dropped, 0
        future = self._packets.request({"mode": "gap", "dropped": count, "action_id": self._new_id()})

        def answered(answer: "asyncio.Future[Answer]") -> None:
            if answer.cancelled() or answer.exception() is not None or "seq" not in answer.result():
                self._drop(count)

        future.add_done_callback(answered)
        return future
