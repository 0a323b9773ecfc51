"""The durable file of a host: staged lines, one write and one fdatasync for a group, rotation, bounds."""

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from paddock.audit.chain import Chain, Saved
from paddock.audit.event import AuditUnavailable
from paddock.audit.segments import replace_file, saved_path, segment_path, segments, sync_directory
from paddock.contracts.base import Wire

RESERVE_BYTES = 1 << 20
_TRANSIENT = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Full(Exception):
    """No room for another line within the configured bounds; the text says which bound."""


class Heads(Wire):
    """All unsealed chains at the start of a segment."""

    chains: dict[str, Saved]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds in bytes: of the whole spool, of one segment file, and of what one sandbox may use of the spool."""

    spool_bytes: int
    segment_bytes: int
    sandbox_bytes: int


@dataclass(slots=True)
class _Staged:
    chain: Chain
    key: bytes
    leaf: bytes
    line: bytes
    kind: str


@dataclass(slots=True)
class Spool:
    """Appends lines to segments; refuses everything once the file is in doubt, and `failed` says why."""

    directory: Path
    limits: Limits
    chains: dict[str, Chain]
    sizes: dict[int, int]
    failed: str = ""
    _staged: list[_Staged] = field(default_factory=list)
    _staged_bytes: int = 0
    _descriptor: int = -1
    _number: int = 0

    def start(self) -> None:
        """Open the newest segment, or the first one."""
        numbers = segments(self.directory)
        self._number = numbers[-1] if numbers else 0
        if not numbers:
            self._next_segment()
            return
        self._descriptor = os.open(segment_path(self.directory, self._number), os.O_WRONLY | os.O_APPEND)

    def close(self) -> None:
        os.close(self._descriptor)

    @property
    def used_bytes(self) -> int:
        """Size of all segments, with what is staged."""
        return sum(self.sizes.values()) + self._staged_bytes

    def room(self, chain: Chain, size: int, *, reserved: bool = False) -> None:
        """Raises Full when `size` more bytes of this chain would pass a bound.

        `reserved`: may use the reserve; only for what the recorder itself says, never for what it is told.
        """
        if self.failed:
            raise AuditUnavailable(self.failed)
        limits = self.limits
        if self.used_bytes + size > limits.spool_bytes + (RESERVE_BYTES if reserved else 0):
            raise Full(f"the spool is full ({limits.spool_bytes} bytes); it shrinks when sandboxes end")
        if not reserved and chain.size_bytes + chain.staged_bytes + size > limits.sandbox_bytes:
            raise Full(f"this sandbox has used its share of the spool ({limits.sandbox_bytes} bytes)")

    def stage(self, chain: Chain, key: bytes, line: bytes, kind: str) -> int:
        """Put a line, made for the chain's next_seq + 1 and next_prev, into the next group; answers its seq."""
        leaf = chain.stage(key, line)
        self._staged.append(_Staged(chain, key, leaf, line, kind))
        self._staged_bytes += len(line) + 1
        return chain.next_seq

    def commit(self) -> None:
        """Make the group durable; raises AuditUnavailable, and then none of it is in any chain."""
        if not self._staged:
            return
        try:
            if self.failed:
                raise AuditUnavailable(self.failed)
            size = self.sizes[self._number]
            if size and size + self._staged_bytes > self.limits.segment_bytes:
                self._rotate()
            self._write(b"".join(staged.line + b"\n" for staged in self._staged))
        except AuditUnavailable:
            for staged in self._staged:
                staged.chain.unstage()
            raise
        else:
            start = self.sizes[self._number] - self._staged_bytes
            for staged in self._staged:
                staged.chain.commit(staged.key, staged.leaf, len(staged.line), staged.kind, self._number, start)
        finally:
            self._staged.clear()
            self._staged_bytes = 0

    def _write(self, data: bytes) -> None:
        before = self.sizes[self._number]
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            self._take_back(before, error)
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            # What the disk holds is unknown now, and a second fdatasync would say yes without writing.
            self.failed = f"fdatasync failed: {error.strerror}; restart the recorder"
            raise AuditUnavailable(self.failed) from error
        self.sizes[self._number] = before + len(data)

    def _take_back(self, size: int, error: OSError) -> None:
        """Cut what a failed write left. A full disk may be tried again later; any other failure is final."""
        try:
            os.ftruncate(self._descriptor, size)
            os.fdatasync(self._descriptor)
        except OSError as second:
            self.failed = f"the spool could not be cut after a failed write: {second.strerror}; restart the recorder"
            raise AuditUnavailable(self.failed) from second
        if error.errno not in _TRANSIENT:
            self.failed = f"writing failed: {error.strerror}; restart the recorder"
        raise AuditUnavailable(f"writing failed: {error.strerror}") from error

    def _rotate(self) -> None:
        try:
            self._next_segment()
        except OSError as error:
            raise AuditUnavailable(f"no new segment: {error.strerror}") from error

    def _next_segment(self) -> None:
        number = self._number + 1
        heads = Heads(chains={name: chain.save() for name, chain in self.chains.items()})
        replace_file(saved_path(self.directory, number), heads.model_dump_json().encode())
        path = segment_path(self.directory, number)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        sync_directory(path.parent)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._number = descriptor, number
        self.sizes[number] = 0

    def forget(self, sandbox: str) -> None:
        """The chain is sealed elsewhere: drop it, and every older segment that no chain needs any more."""
        del self.chains[sandbox]
        needed = {number for chain in self.chains.values() for number in chain.segments}
        for number in [n for n in self.sizes if n != self._number and n not in needed]:
            segment_path(self.directory, number).unlink(missing_ok=True)
            saved_path(self.directory, number).unlink(missing_ok=True)
            del self.sizes[number]
