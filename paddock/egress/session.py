"""One captured connection, from its first byte to its last: who it is for is settled before anything is answered."""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from pydantic import JsonValue

from paddock.contracts.errors import PaddockError
from paddock.egress.denial import denial
from paddock.egress.exchange import Exchange, Fence, stale_policy
from paddock.egress.flow import Flow, FlowMismatch
from paddock.egress.http.message import Refused, Why
from paddock.egress.http.server import GuestHttp
from paddock.egress.ports import GuestConnection, Tasks
from paddock.egress.record import Subject, unrecorded
from paddock.egress.tcp import Splice
from paddock.egress.tls.authority import Authority
from paddock.egress.tls.hello import Alert, BadHello, Hello, HelloParser, alert_bytes
from paddock.egress.tls.stream import TlsServerStream
from paddock.policy.compile import Compiled
from paddock.policy.decide import Question, decide, protocols

OPENING_S: Final = 15.0
_TLS_ONLY_PORT: Final = 443
_HANDSHAKE: Final = 0x16


class Session(asyncio.Protocol):
    """A connection of the guest to `name:port`. It is its own protocol while the first bytes decide what it speaks."""

    def __init__(
        self,
        fence: Fence,
        authority: Authority,
        tasks: Tasks,
        transport: GuestConnection,
        flow: Flow,
        on_closed: Callable[["Session"], None],
    ) -> None:
        self._fence = fence
        self._authority = authority
        self._tasks = tasks
        self._guest = transport
        self._flow = flow
        self._name = flow.name
        self._port = flow.port
        self._on_closed = on_closed
        self._protocol = ""
        self._first = b""
        self._hello = HelloParser()
        self._settled = False
        self._deadline = fence.time() + OPENING_S
        self._http: GuestHttp | None = None
        self._exchange: Exchange | None = None
        self._splice: Splice | None = None

    def begin(self) -> None:
        """Take the connection if some rule speaks of its host and port, else record and refuse it."""
        allowed = protocols(self._fence.compiled, self._name, self._port)
        if "tcp" in allowed:
            self._protocol = "tcp"
            self._settled = True
            self._tasks.spawn(self._run_splice(b""))
            return
        if not allowed:
            refused = Refused(403, Why.POLICY, "no rule of the policy allows this host and port")
            self._tasks.spawn(self.refuse(self._fence.denial(refused), "tcp"))
            return
        self._protocol = "http" if "http" in allowed else "tls"
        self._guest.set_protocol(self)
        self._guest.accept()

    async def refuse(self, refused: Refused, protocol: str) -> None:
        """Record, then reset; the guest's client sees a refused connection."""
        self._settled = True
        try:
            subject = Subject(self._name, self._port, protocol)
            await self._fence.recorder.denied(self._fence.recorder.action_id(), "", subject, refused)
        finally:
            self._guest.refuse(refused.words)
            self._on_closed(self)

    def tick(self, now: float) -> None:
        """Called now and then: ends what has been too slow."""
        if self._splice is not None:
            self._splice.tick(now)
        elif self._http is not None:
            self._http.tick(now)
        elif not self._settled and now >= self._deadline:
            self._deny_opening(Refused(408, Why.TIMEOUT, "nothing was said in time"), "tcp", b"")

    def narrow(self, compiled: Compiled) -> None:
        """The policy changed: cut what it no longer allows."""
        if self._exchange is not None:
            self._exchange.narrow(compiled)
        if self._protocol not in protocols(compiled, self._name, self._port):
            if self._fence.stale:
                self._tasks.spawn(self._cut_stale())
            elif self._exchange is None and self._settled:
                subject = Subject(self._name, self._port, self._protocol)
                self._fence.recorder.narrowed(self._fence.recorder.action_id(), "", subject)
            self.abort()

    async def _cut_stale(self) -> None:
        recorder = self._fence.recorder
        subject = Subject(self._name, self._port, self._protocol or "tcp")
        await recorder.denied(recorder.action_id(), "", subject, stale_policy())

    def abort(self) -> None:
        """Cut at once."""
        if self._splice is not None:
            self._splice.abort("cut")
        self._guest.abort()

    # asyncio.Protocol, for the first bytes only.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is known already."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_closed(self)

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        if self._settled:
            return
        first = not self._first
        self._first += data
        if first and self._first[0] != _HANDSHAKE:
            self._plain()
            return
        try:
            hello = self._hello.feed(data)
        except BadHello as bad:
            self._deny_opening(Refused(400, Why.MALFORMED, str(bad)), "tls", alert_bytes(bad.alert))
            return
        if hello is not None:
            self._tls(hello)

    def _plain(self) -> None:
        if self._protocol != "http" or self._port == _TLS_ONLY_PORT:
            refused = Refused(403, Why.IDENTITY, "this host and port is only reached over TLS: use https")
            self._deny_opening(refused, "http", denial(refused))
            return
        self._settled = True
        http = self._serve(self._flow)
        self._guest.set_protocol(http)
        http.connection_made(cast(asyncio.Transport, self._guest))
        http.data_received(self._first)
        self._first = b""

    def _tls(self, hello: Hello) -> None:
        try:
            flow = self._flow = self._flow.with_sni(hello.sni)
            if hello.ech and self._protocol == "tls":
                raise FlowMismatch("sni", "an encrypted hello may name another server, and nothing here could see it")
        except FlowMismatch as mismatch:
            refused = Refused(421, Why.IDENTITY, str(mismatch))
            self._deny_opening(refused, "tls", alert_bytes(Alert.ACCESS_DENIED))
            return
        self._settled = True
        first, self._first = self._first, b""
        if self._protocol == "tls":
            self._tasks.spawn(self._run_splice(first))
            return
        http = self._serve(flow)
        context = self._authority.context(self._name)
        stream = TlsServerStream(context, http, first=first, on_failed=self._handshake_failed)
        self._guest.set_protocol(stream)
        stream.connection_made(cast(asyncio.Transport, self._guest))

    def _handshake_failed(self, why: str) -> None:
        # Often a client that does not trust the fence's authority: without a record nobody would find out.
        refused = Refused(400, Why.MALFORMED, f"the guest's TLS handshake failed: {why}")
        self._deny_opening(refused, "tls", b"")

    def _serve(self, flow: Flow) -> GuestHttp:
        def made(http: GuestHttp) -> None:
            self._tasks.spawn(self._run_http(http, flow))

        self._http = GuestHttp(made, self._fence.time)
        return self._http

    async def _run_http(self, http: GuestHttp, flow: Flow) -> None:
        try:
            again = True
            while again and (request := await http.request()) is not None:
                self._exchange = Exchange(self._fence, flow, http, request)
                again = await self._exchange.run()
                flow = self._exchange.flow
                self._exchange = None
            http.close()
        except Refused as refused:
            subject = Subject(flow.name, flow.port, "https" if flow.tls else "http")
            recorder = self._fence.recorder
            told = await recorder.denied(recorder.action_id(), "", subject, refused)
            http.write(denial(told))
            http.close()
        except BaseException:
            http.abort()
            raise
        finally:
            self._on_closed(self)

    async def _run_splice(self, first: bytes) -> None:
        fence, recorder = self._fence, self._fence.recorder
        subject = Subject(self._name, self._port, self._protocol)
        action = recorder.action_id()
        started = fence.time()
        splice = self._splice = Splice(fence.time)
        decision = decide(fence.compiled, Question(self._name, self._port, self._protocol))
        try:
            if not decision.allowed:
                raise fence.denial(Refused(403, Why.POLICY, "no rule of the policy allows this host and port"))
            if decision.secrets:
                raise Refused(403, Why.SECRET, "a credential can't go where nothing is looked into")
            try:
                await recorder.intent(action, decision.rule, subject, inspected=False)
            except PaddockError:
                raise unrecorded() from None
            await fence.upstreams.connect(lambda: splice.server, self._name, self._port, tls=False)
            if splice.done.done() or self._protocol not in protocols(fence.compiled, self._name, self._port):
                changed = Refused(403, Why.NARROWED, "the policy changed while this connection was on its way")
                raise fence.denial(changed)
        except Refused as refused:
            await recorder.denied(action, decision.rule, subject, refused)
            splice.abort("denied")
            if first:
                self._guest.write(alert_bytes(Alert.ACCESS_DENIED))
                self._guest.close()
            else:
                self._guest.refuse(refused.words)
            self._on_closed(self)
            return
        except BaseException:
            splice.abort("failed")
            self._guest.abort()
            self._on_closed(self)
            raise
        guest = splice.guest
        self._guest.set_protocol(guest)
        guest.connection_made(cast(asyncio.Transport, self._guest))
        if first:
            guest.data_received(first)
        else:
            self._guest.accept()
        splice.join()
        try:
            ended = await splice.done
        finally:
            self._on_closed(self)
        ms = round((fence.time() - started) * 1000, 3)
        detail: dict[str, JsonValue] = {"inspected": False, "ms": ms, "ended": ended}
        detail |= {"bytes_in": splice.server.count, "bytes_out": guest.count}
        recorder.outcome(action, decision.rule, subject, detail)

    def _deny_opening(self, refused: Refused, protocol: str, last_words: bytes) -> None:
        self._settled = True
        self._first = b""
        self._tasks.spawn(self._denied_opening(refused, protocol, last_words))

    async def _denied_opening(self, refused: Refused, protocol: str, last_words: bytes) -> None:
        recorder = self._fence.recorder
        try:
            await recorder.denied(recorder.action_id(), "", Subject(self._name, self._port, protocol), refused)
        finally:
            if last_words:
                self._guest.write(last_words)
            self._guest.close()
            self._on_closed(self)
