"""Start of a recorder: read what the one before left, check it, and cut what it never acknowledged."""

import contextlib
import itertools
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from paddock.audit.chain import REMEMBERED, BrokenChain, Chain, restore
from paddock.audit.checkpoint import parse
from paddock.audit.event import MAX_LINE_BYTES, Line
from paddock.audit.segments import checkpoint_path, complete_lines, saved_path, segment_path, segments
from paddock.audit.spool import Heads, Limits, Spool
from paddock.audit.store import is_sealed

REMEMBERED_BYTES = 2 << 20
_REMEDY = "move the directory aside, keep it as evidence, and start with an empty one"


class DamagedSpool(Exception):
    """Acknowledged lines were changed or are missing; the recorder does not write behind them."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """The spool, ready to append, and how many torn bytes were cut off its end."""

    spool: Spool
    torn_bytes: int


def recover(directory: Path, limits: Limits) -> Recovered:
    """Read the newest segments and make a Spool of them; raises DamagedSpool with the place."""
    for name in ("spool", "sealed", "checkpoints"):
        (directory / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    numbers = segments(directory)
    first, chains = _starting_point(directory, numbers)
    reader = _Reader(directory, chains)
    torn = 0
    for number in numbers:
        if number >= first:
            torn = reader.read(number, last=number == numbers[-1])
    reader.remember(numbers[numbers.index(first) - 1] if numbers and first > numbers[0] else None)
    for chain in chains.values():
        _compare(directory, chain)
    sizes = {number: segment_path(directory, number).stat().st_size for number in numbers}
    spool = Spool(directory, limits, chains, sizes)
    spool.start()
    return Recovered(spool, torn)


def _starting_point(directory: Path, numbers: list[int]) -> tuple[int, dict[str, Chain]]:
    """The segment to read from: the newest; older ones only when the heads at its start are not readable."""
    for number in reversed(numbers):
        try:
            heads = Heads.model_validate_json(saved_path(directory, number).read_bytes())
        except (OSError, ValidationError):
            continue
        chains = {name: restore(name, saved) for name, saved in heads.chains.items()}
        return number, {name: chain for name, chain in chains.items() if not is_sealed(directory, name)}
    return (numbers[0] if numbers else 1), {}


class _Reader:
    """Follows every chain through segments, and keeps the last events of each to know repetitions by."""

    def __init__(self, directory: Path, chains: dict[str, Chain]) -> None:
        self._directory = directory
        self._chains = chains
        self._sealed: set[str] = set()
        self._last: dict[str, deque[Line]] = {}

    def read(self, number: int, *, last: bool) -> int:
        """Read one segment; answers how many torn bytes were cut off the last one."""
        path = segment_path(self._directory, number)
        good = 0
        for offset, line in complete_lines(path):
            try:
                self._follow(line, number, offset)
            except ValidationError as error:
                raise DamagedSpool(f"{path} at byte {offset}: not an event; {_REMEDY}") from error
            except BrokenChain as error:
                raise DamagedSpool(f"{path} at byte {offset}: {error}; {_REMEDY}") from error
            good = offset + len(line) + 1
        torn = path.stat().st_size - good
        # A write that was cut short leaves whole lines and less than one line; anything else is no accident of ours.
        if torn > MAX_LINE_BYTES or (torn and not last):
            raise DamagedSpool(f"{path} at byte {good}: {torn} bytes that are no line; {_REMEDY}")
        if torn:
            descriptor = os.open(path, os.O_WRONLY)
            try:
                os.ftruncate(descriptor, good)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return torn

    def _follow(self, line: bytes, number: int, offset: int) -> None:
        event = Line.model_validate_json(line)
        if event.sandbox in self._sealed:
            return
        chain = self._chains.get(event.sandbox)
        if chain is None:
            if is_sealed(self._directory, event.sandbox):
                self._sealed.add(event.sandbox)
                return
            chain = self._chains[event.sandbox] = Chain(event.sandbox)
        chain.follow(line, event, number, offset)
        self._last.setdefault(event.sandbox, deque(maxlen=REMEMBERED)).append(event)

    def remember(self, before: int | None) -> None:
        """Hand each chain its recent events; those at the end of the segment before the ones that were read, too."""
        if before is not None:
            path = segment_path(self._directory, before)
            start = max(0, path.stat().st_size - REMEMBERED_BYTES)
            # The first line from there may be half of one; it is older than what is asked again.
            for _, line in itertools.islice(complete_lines(path, start), 1 if start else 0, None):
                with contextlib.suppress(ValidationError):
                    event = Line.model_validate_json(line)
                    if event.sandbox in self._chains:
                        self._chains[event.sandbox].remember(event)
        for name, events in self._last.items():
            for event in events:
                self._chains[name].remember(event)


def _compare(directory: Path, chain: Chain) -> None:
    """Whole lines that were taken off the end look like nothing; the newest checkpoint knows of them."""
    try:
        checkpoint = parse(checkpoint_path(directory, chain.sandbox).read_text())
    except (OSError, ValueError):
        return
    if checkpoint.size > chain.seq or (checkpoint.size == chain.seq and checkpoint.root != chain.frontier.root()):
        raise DamagedSpool(
            f"the chain of {chain.sandbox} ends at {chain.seq}, its checkpoint covers {checkpoint.size}; {_REMEDY}"
        )
