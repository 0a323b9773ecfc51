"""The environment worker's side: one grant for one machine of one host, opened once, closed with proof.

A grant is an entity at the store named after the machine, tied by an alias to what the machine's cloud says of it; a
locker which that entity alone may read; and in it a wrapped token, which is unwrapped once at most. The store enforces
all of that: nothing is remembered here.
"""

import logging
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime

from paddock.bootstrap.errors import NotYet, Refused
from paddock.bootstrap.hidden import Hidden
from paddock.bootstrap.names import machine_name
from paddock.bootstrap.shelf import AFTER_S, Grant, GrantsConfig, Shelf
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.report import Gone, Receipt

log = logging.getLogger(__name__)
# The store cuts the token's life at three hours (docs/bootstrap.md): a grant may not outlive it.
LONGEST_S = 3 * 3600 - AFTER_S


class Grants:
    """The grants of one environment. Calls block: make them on a thread. Each raises NotYet and Refused."""

    def __init__(self, config: GrantsConfig, clock: Callable[[], float] = time.time) -> None:
        self._shelf, self._clock = Shelf(config), clock

    def open(self, host: str, attempt: int, instance: str, ends: datetime) -> Grant:
        """A grant for the machine that its cloud's tokens call `instance`, until `ends`; twice is one grant.

        Raises Refused for a grant that was closed, for one that is open for another machine, and for a machine that
        another grant is open for.
        """
        if attempt < 1 or not instance:
            raise PaddockError(ErrorKind.BAD_SPEC, "a grant is for an attempt from 1 on, and an instance", field="host")
        name = machine_name(host, attempt)
        grant, version = self._shelf.record(name)
        if grant and grant.state == "closed":
            raise Refused(f"the grant of {name} is closed: {grant.why}", field=name)
        if grant and grant.instance != instance:
            raise Refused(f"the grant of {name} is open for {grant.instance}, not for {instance}", field=name)
        if grant and self._shelf.wrapped(name):
            return grant
        if grant:
            # Somebody died between the two writes of `_make`: nobody ever saw that token.
            self._shelf.revoke(grant)
        made, wrapped = self._make(host, attempt, instance, ends, version)
        self._shelf.fill(name, wrapped)
        now, _ = self._shelf.record(name)
        if now is None or now.state == "closed":  # behind our back: what it ended must not look open again
            self._shelf.empty(name)
            raise Refused(f"the grant of {name} was closed while it was opened", field=name)
        return made

    def join(self, host: str, ends: datetime) -> Hidden:
        """A join token for a machine that no provider made: one use until `ends`; the host's earlier one is closed."""
        name = machine_name(host, 0)
        grant, version = self._shelf.record(name)
        if grant and grant.state == "open":
            self.close(host, 0, "another join token was made")
            _, version = self._shelf.record(name)
        return self._make(host, 0, "", ends, version)[1]

    def close(self, host: str, attempt: int, why: str) -> tuple[Receipt, ...]:
        """End a grant, used or not, and the token from it; it can't be opened again. Twice does no harm.

        Its receipt is `proved` when the store was asked, and refused what the grant was made of.
        """
        name = machine_name(host, attempt)
        grant, version = self._shelf.record(name)
        now = datetime.fromtimestamp(self._clock(), UTC)
        wrapped = self._shelf.wrapped(name)
        if grant is None:
            # An opening that was on its way finds this record, and ends.
            grant = Grant(host=host, attempt=attempt, state="open", ends=now)
        self._shelf.revoke(grant)
        self._shelf.end_entity(name)
        self._shelf.empty(name)
        if grant.state == "open":
            self._shelf.write(grant.model_copy(update={"state": "closed", "why": why[:1000], "ends": now}), version)
            log.info("grant of %s is closed: %s", name, why)
        left = self._shelf.left(grant, wrapped)
        if left:
            return (self._receipt(name, Gone.UNPROVED, f"the store still has {', '.join(left)}"),)
        tried = "unwrapping it was tried and refused; " if wrapped else ""
        by = f"{tried}the store knows neither its tokens nor its entity nor its locker"
        return (self._receipt(name, Gone.PROVED, by),)

    def list(self) -> tuple[Grant, ...]:
        """Every grant that the store remembers, open and closed."""
        found = (self._shelf.record(name)[0] for name in self._shelf.names())
        return tuple(grant for grant in found if grant)

    def left(self, living: frozenset[tuple[str, int]]) -> tuple[Grant, ...]:
        """For the sweep: open grants of machines (host, attempt) that are not among the living ones.

        List grants before the machines: one that is opened in between is not seen, and so not taken for left.
        """
        return tuple(
            grant for grant in self.list() if grant.state == "open" and (grant.host, grant.attempt) not in living
        )

    def forget(self, before: datetime) -> int:
        """Drop what is remembered of grants closed before then, and entities made up for machines without a grant.

        A forgotten attempt could be opened again: `before` lies a machine's whole life back.
        """
        old = [grant for grant in self.list() if grant.state == "closed" and grant.ends < before]
        for grant in old:
            self._shelf.end_entity(grant.name)
            self._shelf.empty(grant.name)
            self._shelf.forget(grant.name)
        return len(old) + self._shelf.forget_strays()

    def _make(self, host: str, attempt: int, instance: str, ends: datetime, version: int) -> tuple[Grant, Hidden]:
        """Entity, token, record; the token's way to its machine is the caller's."""
        name = machine_name(host, attempt)
        lives = math.floor(ends.timestamp() - self._clock())
        if lives < 1:
            raise Refused(f"the grant of {name} would end before it begins", field=name)
        if lives > LONGEST_S:
            raise PaddockError(ErrorKind.BAD_SPEC, f"a grant lasts {LONGEST_S} s at most, not {lives}", field="ends")
        self._shelf.new_entity(name, instance)
        wrapped, wrapping, token = self._shelf.mint(name, lives)
        grant = Grant(
            host=host, attempt=attempt, state="open", instance=instance, ends=ends, wrapping=wrapping, token=token
        )
        try:
            self._shelf.write(grant, version)
        except (NotYet, Refused):
            # Where only the answer was lost: the next try finds a record without a locker, and begins anew.
            self._shelf.revoke(grant)
            raise
        log.info("grant of %s is open until %s", name, ends.isoformat())
        return grant, wrapped

    def _receipt(self, name: str, gone: Gone, by: str) -> Receipt:
        at = datetime.fromtimestamp(self._clock(), UTC)
        return Receipt(resource="grant", id=name, gone=gone, checked_by=by, at=at)
