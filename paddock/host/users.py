"""Unprivileged uids of a host's processes: fixed ones for its services, two for each sandbox."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Users:
    """Uids and gids counted from `base`; all None when the keeper is not root, and everything runs as its own user."""

    base: int
    root: bool

    @classmethod
    def here(cls, base: int) -> "Users":
        return cls(base, os.geteuid() == 0)

    def _pick(self, offset: int) -> int | None:
        return self.base + offset if self.root else None

    @property
    def service_gid(self) -> int | None:
        """The worker's group, and nobody else's: what it may read or reach, it reaches by this group."""
        return self._pick(0)

    @property
    def recorder(self) -> int | None:
        return self._pick(1)

    @property
    def broker(self) -> int | None:
        return self._pick(2)

    @property
    def worker(self) -> int | None:
        return self._pick(3)

    def supervisor(self, index: int) -> int | None:
        return self._pick(100 + 2 * index)

    def vmm(self, index: int) -> int | None:
        return self._pick(101 + 2 * index)

    @property
    def may_ask(self) -> frozenset[int]:
        """Whose connections the keeper and supervisors answer: the worker's, and their own user's."""
        return frozenset(uid for uid in (os.geteuid(), 0, self.worker) if uid is not None)

    def own(self, path: "os.PathLike[str]", uid: int | None, gid: int | None, mode: int) -> None:
        """Give a path to a user when we can; the mode is set either way."""
        if self.root:
            os.chown(path, -1 if uid is None else uid, -1 if gid is None else gid)
        os.chmod(path, mode)
