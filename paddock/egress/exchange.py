"""One request, in the order that must hold: identity, decide, record, secret, dial, send, scrub and relay, record."""

from collections.abc import Callable
from typing import Final

from paddock.contracts.errors import PaddockError
from paddock.egress.credentials.inject import inject, usable
from paddock.egress.credentials.scrub import Needles, Scrubber
from paddock.egress.denial import denial
from paddock.egress.flow import Flow, FlowMismatch
from paddock.egress.http.client import UpstreamConnection
from paddock.egress.http.message import Header, Refused, Request, UpstreamBroken, Why
from paddock.egress.http.relay import Relay
from paddock.egress.http.server import GuestHttp
from paddock.egress.http.wire import request_head
from paddock.egress.ports import SecretsPort
from paddock.egress.record import Recorder, Subject, unrecorded
from paddock.egress.upstream import Key, Upstreams
from paddock.policy.compile import Compiled, deny_all
from paddock.policy.decide import Decision, Question, Reason, SecretUse, decide

_FRESH_S: Final = 2.0  # a request with effects goes on a kept connection only while that is unlikely to be dead
_MAX_NEEDLES: Final = 32
_WORDS: Final = {
    Reason.BAD_PATH: "the path is not in a form that every server reads alike",
    Reason.BAD_METHOD: "this method is never allowed",
    Reason.SECRET_CONFLICT: "two rules claim the same place in this request for a credential",
}


def stale_policy() -> Refused:
    """The denial beyond the policy's end."""
    return Refused(403, Why.STALE, "the policy that was attached has reached its end and was not attached anew")


class Fence:
    """What all exchanges of one sandbox share."""

    def __init__(
        self,
        *,
        compiled: Compiled,
        recorder: Recorder,
        secrets: SecretsPort,
        upstreams: Upstreams,
        clock: Callable[[], float],
        time: Callable[[], float],
    ) -> None:
        self._compiled = compiled
        self._until = float("inf")
        self.stale = False
        self.recorder = recorder
        self.secrets = secrets
        self.upstreams = upstreams
        self.clock = clock  # what a secret's expiry is measured with
        self.time = time  # monotonic
        self._needles: dict[tuple[bytes, ...], Needles] = {}

    @property
    def compiled(self) -> Compiled:
        """The policy in force now: beyond its end the one that denies all."""
        if self.clock() >= self._until and not self.stale:
            self.stale = True  # kept: a wall clock that is set back revives nothing
            self._compiled = deny_all()
        return self._compiled

    def enforce(self, compiled: Compiled, until: float) -> None:
        """Put a policy in force until `until` (seconds, on the wall clock)."""
        self._compiled, self._until, self.stale = compiled, until, False

    def denial(self, otherwise: Refused) -> Refused:
        """Why something is denied now: the policy went stale, or else what is given."""
        return stale_policy() if self.stale else otherwise

    def needles(self, values: tuple[bytes, ...]) -> Needles:
        """Compiled needles for these values, kept for the next request."""
        found = self._needles.get(values)
        if found is None:
            while len(self._needles) >= _MAX_NEEDLES:
                self._needles.pop(next(iter(self._needles)))
            found = self._needles[values] = Needles(values)
        return found

    def forget(self) -> None:
        """Drop what reminds of secrets."""
        self._needles.clear()


class Exchange:
    """One request of a guest and its answer."""

    def __init__(self, fence: Fence, flow: Flow, guest: GuestHttp, request: Request) -> None:
        self._fence = fence
        self.flow = flow
        self._guest = guest
        self._request = request
        self._action = fence.recorder.action_id()
        self._subject = Subject(flow.name, flow.port, "https" if flow.tls else "http", request.method, request.path)
        self._question = Question(flow.name, flow.port, "http", request.method, request.path)
        self._decision = Decision(False, "", Reason.NOT_ALLOWED)
        self._needles: Needles | None = None
        self._secrets_until = float("inf")
        self._relay: Relay | None = None

    async def run(self) -> bool:
        """Do it all; True when the connection may carry another request."""
        started = self._fence.time()
        try:
            self._identify()
            compiled = self._decide()
            await self._record_intent()
            headers = await self._with_secrets()
            upstream = await self._connection()
            self._still_good(compiled, upstream)
        except Refused as refused:
            await self._deny(refused)
            return False
        try:
            upstream = await self._send(upstream, headers, compiled)
        except Refused as refused:
            return self._broken(refused, started)
        except UpstreamBroken as broken:
            words = f"the server's answer was not usable: {broken}"
            return self._broken(Refused(502, Why.UPSTREAM, words), started)
        return self._whole(upstream, started)

    def narrow(self, compiled: Compiled) -> None:
        """The policy changed: end this exchange if it would not be allowed now."""
        relay = self._relay
        if relay is not None and not relay.done.done() and not decide(compiled, self._question).allowed:
            if not self._fence.stale:  # that denial is recorded where all of them are, by the session
                self._fence.recorder.narrowed(self._fence.recorder.action_id(), self._decision.rule, self._subject)
            narrowed = Refused(403, Why.NARROWED, "the policy no longer allows this request")
            relay.guest_broken(self._fence.denial(narrowed))

    def _identify(self) -> None:
        port = self._request.port or (443 if self.flow.tls else 80)
        if self.flow.host == self._request.host and self.flow.port == port:
            return  # the same as the request before on this connection
        try:
            self.flow = self.flow.with_host(self._request.host, self._request.port)
        except FlowMismatch as mismatch:
            raise Refused(421, Why.IDENTITY, str(mismatch)) from None

    def _decide(self) -> Compiled:
        compiled = self._fence.compiled
        self._decision = decide(compiled, self._question)
        if not self._decision.allowed:
            words = _WORDS.get(self._decision.reason, "no rule of the policy allows this request")
            raise self._fence.denial(Refused(403, Why.POLICY, words))
        return compiled

    async def _record_intent(self) -> None:
        try:
            await self._fence.recorder.intent(self._action, self._decision.rule, self._subject)
        except PaddockError:
            raise unrecorded() from None

    async def _with_secrets(self) -> tuple[Header, ...]:
        uses, fence, flow, request = self._decision.secrets, self._fence, self.flow, self._request
        if not uses:
            return request.headers
        if not flow.tls and not fence.upstreams.clear_text_secrets(flow.name, flow.port):
            raise Refused(403, Why.SECRET, "this rule's credential is only sent over TLS: use https")
        rule = self._decision.rule
        found: list[tuple[SecretUse, bytes]] = []
        try:
            for use in uses:
                secret = await fence.secrets.fetch(
                    use.ref, rule=rule, host=flow.name, port=flow.port, method=request.method, path=request.path
                )
                found.append((use, usable(secret, fence.clock())))
                self._secrets_until = min(self._secrets_until, secret.expires_at)
            headers = inject(request.headers, found)
        except PaddockError:
            raise Refused(503, Why.SECRET, "a credential that this rule needs is not available") from None
        try:
            await fence.recorder.secret_used(self._action, rule, self._subject, [use.ref for use in uses])
        except PaddockError:
            raise unrecorded() from None
        self._needles = fence.needles(tuple(value for _, value in found))
        return headers

    async def _connection(self, *, fresh: bool = False) -> UpstreamConnection:
        flow, upstreams = self.flow, self._fence.upstreams
        key = Key(flow.name, flow.port, flow.tls, tuple(use.ref for use in self._decision.secrets))
        if not fresh:
            kept = upstreams.take(key) if self._request.idempotent else upstreams.take(key, longest_idle_s=_FRESH_S)
            if kept is not None:
                return kept
        return await upstreams.dial(key)

    def _still_good(self, compiled: Compiled, upstream: UpstreamConnection) -> None:
        """After every wait, before anything is sent: the policy may have changed, a secret may have expired."""
        now = self._fence.compiled
        if now is not compiled and decide(now, self._question) != self._decision:
            upstream.abort()
            changed = Refused(403, Why.NARROWED, "the policy changed while this request was on its way")
            raise self._fence.denial(changed)
        if self._secrets_until <= self._fence.clock():
            upstream.abort()
            raise Refused(503, Why.SECRET, "the credential expired while this request was on its way")

    async def _send(
        self, upstream: UpstreamConnection, headers: tuple[Header, ...], compiled: Compiled
    ) -> UpstreamConnection:
        head = request_head(self._request, self.flow.authority.encode("ascii"), headers)
        while True:
            scrubber = Scrubber(self._needles) if self._needles is not None else None
            relay = self._relay = Relay(self._guest, upstream, self._request, scrubber)
            try:
                relay.start(head)
                await relay.done
                return upstream
            except UpstreamBroken:
                # A kept connection may have died before it saw the request; only what has no effect is sent again.
                if not upstream.reused or upstream.answered or not self._request.idempotent:
                    raise
            finally:
                self._guest.release()
                if not relay.done.done() or relay.done.cancelled():
                    upstream.abort()
            upstream = await self._connection(fresh=True)
            self._still_good(compiled, upstream)

    async def _deny(self, refused: Refused) -> None:
        told = await self._fence.recorder.denied(self._action, self._decision.rule, self._subject, refused)
        self._guest.write(denial(told, self._decision.rule, head=self._request.method == "HEAD"))

    def _broken(self, refused: Refused, started: float) -> bool:
        if self._relay is not None and self._relay.status:
            self._guest.abort()  # the answer has begun: only a cut tells the guest that it isn't whole
        else:
            self._guest.write(denial(refused, self._decision.rule, head=self._request.method == "HEAD"))
        self._note(started, refused.why.value)
        return False

    def _whole(self, upstream: UpstreamConnection, started: float) -> bool:
        self._note(started, "whole")
        if not self._guest.body_done:
            upstream.abort()  # answered before the body was sent: what follows on this connection is anyone's guess
            return False
        self._fence.upstreams.give_back(upstream)
        return self._request.keep_alive and not self._guest.lost

    def _note(self, started: float, ended: str) -> None:
        relay, recorder = self._relay, self._fence.recorder
        assert relay is not None
        rule, ms = self._decision.rule, round((self._fence.time() - started) * 1000, 3)
        recorder.outcome(
            self._action,
            rule,
            self._subject,
            {
                "status": relay.status,
                "bytes_in": relay.bytes_in,
                "bytes_out": relay.bytes_out,
                "ms": ms,
                "ended": ended,
            },
        )
        if relay.findings:
            recorder.finding(self._action, rule, self._subject, "secret-in-answer", relay.findings)
