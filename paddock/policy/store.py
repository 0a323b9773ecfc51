"""The control plane's policies: a directory of revisions, each written once, with who applied it and when.

Layout: `<directory>/<name>/<revision>.json`. A revision is never overwritten or removed, so `name@revision` means the
same for ever, and the document applied is kept beside its compiled form.
"""

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, ValidationError

from paddock.contracts.base import Strict
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.ids import digest
from paddock.policy.compile import Compiled, Flat, compile_policy, deny_all
from paddock.policy.document import parse
from paddock.policy.model import DENY_ALL

_REFERENCE = re.compile(r"([a-z0-9][a-z0-9._-]{0,62})(?:@([0-9]{1,9}))?")
_REVISION = re.compile(r"([1-9][0-9]{0,8})\.json")


class Revision(Strict):
    """One applied document with its compiled form."""

    name: str
    revision: int
    author: str
    at: AwareDatetime
    file: str
    text_digest: str
    text: str
    policy_digest: str
    policy: Flat


def _now() -> datetime:
    return datetime.now(UTC)


class PolicyStore:
    """Named, numbered policies in a directory; safe for several processes at once."""

    def __init__(self, directory: Path, clock: Callable[[], datetime] = _now) -> None:
        self._directory = directory
        self._clock = clock

    def apply(self, text: str, file: str, author: str) -> tuple[str, int, str]:
        """(name, revision, digest) of this document, durable on return; the newest revision's text again keeps it.

        Raises PolicyError for a bad document, PaddockError when the disk refuses.
        """
        document = parse(text, file)
        folder = self._directory / document.name
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(folder):
                newest = max(self._revisions(document.name), default=0)
                if newest:
                    last = self._read(document.name, newest)
                    if last.text_digest == digest(text.encode()):
                        return document.name, newest, last.policy_digest
                compiled = compile_policy(document, revision=newest + 1)
                revision = Revision(
                    name=document.name,
                    revision=newest + 1,
                    author=author,
                    at=self._clock(),
                    file=file,
                    text_digest=digest(text.encode()),
                    text=text,
                    policy_digest=compiled.digest,
                    policy=compiled.flat,
                )
                _write_once(folder / f"{revision.revision}.json", revision.model_dump_json(indent=1).encode())
        except OSError as error:
            raise PaddockError(
                ErrorKind.DISK_FULL if error.errno in (28, 122) else ErrorKind.SET_UP,
                f"policy '{document.name}' could not be stored: {error.strerror}",
                field=str(folder),
                remedy="Nothing was changed; make the directory writable and apply the policy again.",
            ) from None
        return document.name, revision.revision, revision.policy_digest

    def get(self, reference: str) -> Compiled:
        """The policy of "name" (its newest revision) or "name@revision". Raises PaddockError UNKNOWN_POLICY."""
        name, number = self._split(reference)
        if name == DENY_ALL:
            if number:
                raise self._unknown(reference)
            return deny_all()
        return self._compiled(self.revision(reference))

    def revision(self, reference: str) -> Revision:
        """The whole record of an applied policy: document, author, time. Raises PaddockError UNKNOWN_POLICY."""
        name, number = self._split(reference)
        found = list(self._revisions(name))
        if not found or (number and number not in found):
            raise self._unknown(reference)
        return self._read(name, number or max(found))

    def names(self) -> list[str]:
        """Every policy that can be asked for, the built-in one included."""
        folders = self._directory.iterdir() if self._directory.is_dir() else iter(())
        stored = (f.name for f in folders if _REFERENCE.fullmatch(f.name) and any(self._revisions(f.name)))
        return sorted({DENY_ALL, *stored})

    def _split(self, reference: str) -> tuple[str, int]:
        found = _REFERENCE.fullmatch(reference)
        if found is None or (found[2] is not None and not int(found[2])):
            raise self._unknown(reference)
        return found[1], int(found[2] or 0)

    def _revisions(self, name: str) -> Iterator[int]:
        folder = self._directory / name
        if folder.is_dir():
            yield from (int(m[1]) for f in folder.iterdir() if (m := _REVISION.fullmatch(f.name)))

    def _read(self, name: str, number: int) -> Revision:
        path = self._directory / name / f"{number}.json"
        try:
            revision = Revision.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            raise self._damaged(path) from None
        if (revision.name, revision.revision) != (name, number):
            raise self._damaged(path)
        return revision

    def _compiled(self, revision: Revision) -> Compiled:
        compiled = Compiled(revision.policy)
        if compiled.digest != revision.policy_digest:
            raise self._damaged(self._directory / revision.name / f"{revision.revision}.json")
        return compiled

    def _damaged(self, path: Path) -> PaddockError:
        return PaddockError(
            ErrorKind.BAD_POLICY,
            "a stored policy is damaged",
            field=str(path),
            remedy="Apply the document again under a new revision, or restore this file from a backup.",
        )

    def _unknown(self, reference: str) -> PaddockError:
        return PaddockError(
            ErrorKind.UNKNOWN_POLICY,
            f"there is no policy '{reference[:80]}'; there are: {', '.join(self.names())}",
            remedy="Apply it first: paddock policy apply FILE",
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_once(path: Path, data: bytes) -> None:
    """Write, sync, then link under the final name: a revision exists whole or not at all, and none is replaced."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    finally:
        os.unlink(draft)
    for folder in (path.parent, path.parent.parent):
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
