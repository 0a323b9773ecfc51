"""Counts of dropped events that found no room in their chain: one small file a sandbox, however often they are said."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from paddock.audit.segments import replace_file, sync_directory
from paddock.contracts.base import Wire

log = logging.getLogger(__name__)
MOST: Final = 1 << 53
_REMEMBERED: Final = 16


class Held(Wire):
    """The sum of what a chain does not say yet, and the last reports in it, so that a repetition is not added."""

    dropped: int = Field(ge=1, le=MOST)
    reports: tuple[str, ...]


@dataclass(slots=True)
class Gaps:
    """Held counts by sandbox; durable when a method returns, OSError when the disk does not take them."""

    directory: Path

    def held(self, sandbox: str) -> Held | None:
        """What is held for a sandbox."""
        try:
            return Held.model_validate_json(self._path(sandbox).read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            log.error("the count of what %s dropped cannot be read; it is lost", sandbox)
            return None

    def add(self, sandbox: str, dropped: int, report: str) -> None:
        """Add `dropped`, unless `report` was added lately."""
        held = self.held(sandbox)
        reports = held.reports if held else ()
        if report and report in reports:
            return
        total = min(dropped + (held.dropped if held else 0), MOST)
        new = Held(dropped=total, reports=(*reports, report)[-_REMEMBERED:])
        if not self.directory.exists():
            self.directory.mkdir(mode=0o700)
            sync_directory(self.directory.parent)
        replace_file(self._path(sandbox), new.model_dump_json().encode())

    def forget(self, sandbox: str) -> None:
        """The chain says it now."""
        self._path(sandbox).unlink(missing_ok=True)

    def _path(self, sandbox: str) -> Path:
        return self.directory / sandbox
