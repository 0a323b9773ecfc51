"""One sandbox at the broker: which secrets its signed policy binds to what, its store session, and its end."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from paddock.policy.decide import Question, decide
from paddock.policy.signed import Verified, open_signed
from paddock.secrets.accessors import Accessors
from paddock.secrets.store import Ended, Forbidden, Secret, SecretUnavailable, Session, Store

log = logging.getLogger(__name__)
MAX_CACHED = 64
FORBIDDEN_FOR_S = 10.0


class Access:
    """`check` and `cached` answer at once; `open`, `read`, `renew` and `end` block, one at a time and on a thread."""

    def __init__(self, sandbox: str, store: Store, accessors: Accessors, clock: Callable[[], float]) -> None:
        self.sandbox = sandbox
        self._store = store
        self._accessors = accessors
        self._clock = clock
        self._policy: Verified | None = None
        self._session: Session | None = None
        self._cache: dict[str, Secret] = {}
        self._forbidden: dict[str, float] = {}
        self._ended = False

    def attach(self, signed: str, key: Ed25519PublicKey) -> None:
        """Take a policy, signed for this sandbox by the control plane; raises PaddockError."""
        self._alive()
        self._policy = open_signed(signed, self.sandbox, key, datetime.fromtimestamp(self._clock(), UTC))

    @property
    def wants_session(self) -> bool:
        """The policy names secrets, and no token was opened yet."""
        return self._session is None and self._policy is not None and bool(self._policy.compiled.secret_refs)

    def check(self, ref: str, rule: str, question: Question) -> None:
        """Raises SecretUnavailable unless the policy gives this secret to this rule for this request, now."""
        self._alive()
        if self._policy is None:
            raise SecretUnavailable("no policy is attached to this sandbox")
        if self._clock() >= self._policy.not_after.timestamp():
            raise SecretUnavailable("the policy of this sandbox is stale")
        decision = decide(self._policy.compiled, question)
        if not decision.allowed or decision.rule != rule or all(use.ref != ref for use in decision.secrets):
            raise SecretUnavailable("the policy does not give this secret to this request")

    def cached(self, ref: str) -> Secret | None:
        """A value read before whose lease still holds."""
        secret = self._cache.get(ref)
        return secret if secret is not None and secret.expires_at > self._clock() else None

    def open(self) -> None:
        """Open the sandbox's store token; its accessor is on disk before it is used. Tokens of an earlier broker go."""
        self._alive()
        if self._session is not None:
            return
        self._log_in()
        for accessor in self._accessors.of(self.sandbox):
            if self._session is not None and accessor != self._session.accessor:
                self._end_old(accessor)

    def _log_in(self) -> Session:
        session = self._store.open(self.sandbox)
        self._accessors.add(self.sandbox, session.accessor)
        self._session = session
        return session

    def _end_old(self, accessor: str) -> None:
        try:
            if self._store.end_by_accessor(accessor).proved:
                self._accessors.remove(self.sandbox, accessor)
        except SecretUnavailable as error:
            log.warning("an earlier token of %s is left for its end: %s", self.sandbox, error.info.message)

    def read(self, ref: str) -> Secret:
        """The value, from the store or from its lease; raises SecretUnavailable. A refused token is replaced once."""
        self._alive()
        held = self.cached(ref)
        if held is not None:
            return held
        if self._forbidden.get(ref, 0.0) > self._clock():
            raise SecretUnavailable(f"the secret store refused to read {ref} (403) a moment ago")
        session = self._session or self._log_in()
        try:
            secret = session.read(ref)
        except Forbidden:
            secret = self._read_anew(ref, session)
        if len(self._cache) >= MAX_CACHED:
            del self._cache[next(iter(self._cache))]
        self._cache[ref] = secret
        return secret

    def _read_anew(self, ref: str, refused: Session) -> Secret:
        """After a 403: one new token, one more try, then a pause for this secret."""
        try:
            secret = self._log_in().read(ref)
        except Forbidden:
            if len(self._forbidden) >= MAX_CACHED:
                self._forbidden.clear()
            self._forbidden[ref] = self._clock() + FORBIDDEN_FOR_S
            raise
        finally:
            self._end_session(refused)
        return secret

    def _end_session(self, session: Session) -> Ended:
        try:
            ended = session.end()
        except SecretUnavailable as error:
            return Ended(False, error.info.message)
        if ended.proved:
            self._accessors.remove(self.sandbox, session.accessor)
        return ended

    def renew_at(self) -> float | None:
        """When the session wants `renew`, seconds since 1970."""
        return self._session.renew_at() if self._session is not None and not self._ended else None

    def renew(self) -> None:
        """Prolong the session; raises SecretUnavailable."""
        if self._session is not None and not self._ended:
            self._session.renew()

    def close(self) -> None:
        """From now on nothing is handed out; `end` proves it at the store."""
        self._ended = True
        self._cache.clear()

    def end(self) -> Ended:
        """Revoke every token of the sandbox and see each refused. Repeatable; unproved ones are tried again."""
        self.close()
        seen: list[str] = []
        proved = True
        if self._session is not None:
            ended = self._end_session(self._session)
            proved, seen = ended.proved, [ended.checked_by]
            if ended.proved:
                self._session = None
        kept = self._session.accessor if self._session is not None else ""
        for accessor in self._accessors.of(self.sandbox):
            if accessor == kept:
                continue
            try:
                ended = self._store.end_by_accessor(accessor)
            except SecretUnavailable as error:
                ended = Ended(False, error.info.message)
            if ended.proved:
                self._accessors.remove(self.sandbox, accessor)
            proved = proved and ended.proved
            seen.append(ended.checked_by)
        return Ended(proved, "; ".join(dict.fromkeys(seen)) or "no store token of this sandbox is out")

    def _alive(self) -> None:
        if self._ended:
            raise SecretUnavailable("this sandbox's access to secrets was ended")
