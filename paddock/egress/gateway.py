"""The fence of one sandbox: every captured connection and DNS question of the guest comes in here."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from paddock.egress.config import Connection
from paddock.egress.dns import Names
from paddock.egress.exchange import Fence
from paddock.egress.flow import Flow, Transport
from paddock.egress.http.message import Refused, Why
from paddock.egress.ports import AuditPort, GuestConnection, SecretsPort, Tasks
from paddock.egress.record import Recorder, printable
from paddock.egress.session import Session
from paddock.egress.tls.authority import Authority
from paddock.egress.upstream import Resolve, Upstreams
from paddock.policy.compile import Compiled, deny_all
from paddock.policy.decide import name_allowed

MAX_CONNECTIONS: Final = 512
_TICK_S: Final = 1.0

_log = logging.getLogger(__name__)


class Gateway:
    """Decides, records and carries everything that leaves one sandbox; denies all until a policy is applied."""

    def __init__(
        self,
        *,
        sandbox: str,
        connections: tuple[Connection, ...],
        audit: AuditPort,
        secrets: SecretsPort,
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
        resolve: Resolve | None = None,
    ) -> None:
        self._sandbox = sandbox
        self._recorder = Recorder(audit)
        self._upstreams = Upstreams(connections, monotonic, resolve)
        self._fence = Fence(
            compiled=deny_all(),
            recorder=self._recorder,
            secrets=secrets,
            upstreams=self._upstreams,
            clock=clock,
            time=monotonic,
        )
        self._authority = Authority(sandbox, clock)
        self._names = Names(lambda host: name_allowed(self._fence.compiled, host))
        self._sessions: set[Session] = set()
        self._tasks = Tasks(self._stray)
        self._ticker: asyncio.TimerHandle | None = None
        self._closed = False
        self._gone_stale = False  # and everything open was cut

    @property
    def digest(self) -> str:
        """Digest of the policy that is enforced."""
        return self._fence.compiled.digest

    @property
    def ca_pem(self) -> bytes:
        """Certificate that the guest must trust; the key never leaves this process."""
        return self._authority.ca_pem

    def apply(self, compiled: Compiled, not_after: datetime | None = None) -> None:
        """Enforce this policy until `not_after` (aware; None: for good); what it does not allow is cut.

        Beyond its end everything is denied, no name resolves, and within a second every open connection is cut.
        """
        self._fence.enforce(compiled, float("inf") if not_after is None else not_after.timestamp())
        self._gone_stale = False
        self._narrow()

    def _narrow(self) -> None:
        compiled = self._fence.compiled
        self._fence.forget()
        self._upstreams.drop_idle()
        for session in tuple(self._sessions):
            session.narrow(compiled)

    async def dns(self, query: bytes, tcp: bool) -> bytes | None:
        """The answer to a DNS question, made here: nothing is asked upstream. None when there is no answer to give."""
        answer = self._names.answer(query)
        if not answer.allowed:
            self._recorder.dns_denied(answer.name or "(not a host name)", answer.qtype, self._fence.time())
        return answer.message or None

    def connect(self, transport: GuestConnection, address: str, port: int) -> None:
        """Take or refuse a captured connection to `address:port`, its original destination."""
        name = None if self._closed else self._names.name_of(address)
        session = Session(
            self._fence,
            self._authority,
            self._tasks,
            transport,
            Flow(self._sandbox, Transport.TCP, name if name is not None else printable(address, 64), port),
            self._sessions.discard,
        )
        if self._closed:
            transport.refuse("the fence is closed")
            return
        if len(self._sessions) >= MAX_CONNECTIONS:
            if len(self._tasks) < 2 * MAX_CONNECTIONS:
                busy = Refused(503, Why.BUSY, "too many connections at once")
                self._tasks.spawn(session.refuse(busy, "tcp"))
            else:
                transport.refuse("too many connections at once")
            return
        self._sessions.add(session)
        if self._ticker is None:
            self._ticker = asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        if name is None:
            literal = Refused(403, Why.ADDRESS, "only hosts that are looked up by name here can be reached")
            self._tasks.spawn(session.refuse(literal, "tcp"))
        else:
            session.begin()

    def denied(self) -> list[tuple[str, str, int]]:
        """(rule, host, how often) of everything refused so far; the rule is "" when none spoke of it."""
        return self._recorder.counts()

    async def close(self) -> None:
        """Cut every connection and forget every secret."""
        self._closed = True
        if self._ticker is not None:
            self._ticker.cancel()
        for session in tuple(self._sessions):
            session.abort()
        await self._tasks.cancel()
        self._fence.forget()
        self._upstreams.close()

    def _tick(self) -> None:
        self._ticker = None
        now = self._fence.time()
        compiled = self._fence.compiled  # looks at the clock: the policy may have gone stale
        if self._fence.stale and not self._gone_stale:
            self._gone_stale = True
            _log.warning("sandbox %s: the policy reached its end; all is denied (%s)", self._sandbox, compiled.digest)
            self._narrow()
        for session in tuple(self._sessions):
            session.tick(now)
        self._upstreams.tick(now)
        if not self._closed and (self._sessions or self._upstreams.idle):
            self._ticker = asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def _stray(self, failure: BaseException) -> None:
        # The connection is cut already; only the type is logged: a message could hold the guest's bytes or a secret.
        _log.error("sandbox %s: a connection failed inside the fence: %s", self._sandbox, type(failure).__name__)
