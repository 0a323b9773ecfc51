"""The two ways in which bootstrapping fails: for now, or for good."""

from paddock.contracts.errors import ErrorKind, PaddockError


class NotYet(PaddockError):
    """Out of reach, busy, sealed, or not opened yet: the same call may succeed later. The words never hold a secret."""

    def __init__(self, why: str, *, field: str = "", remedy: str = "") -> None:
        super().__init__(ErrorKind.UNREACHABLE, why, field=field, remedy=remedy)


class Refused(PaddockError):
    """A refusal that trying again does not change; `status` is the other side's, 0 where we refused ourselves."""

    def __init__(self, why: str, *, status: int = 0, reason: str = "", field: str = "", remedy: str = "") -> None:
        super().__init__(ErrorKind.NOT_ALLOWED, why, field=field, remedy=remedy)
        self.status = status
        self.reason = reason  # the other side's own text: to be matched, never to be shown, as it may quote us
