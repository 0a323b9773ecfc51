"""Start of a recorder: read what the one before left, check it, and cut what it never acknowledged."""

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from paddock.audit.chain import BrokenChain, Chain, restore
from paddock.audit.event import MAX_LINE_BYTES, Line
from paddock.audit.segments import complete_lines, saved_path, segment_path, segments
from paddock.audit.spool import Heads, Limits, Spool
from paddock.audit.store import is_sealed

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
    sealed: set[str] = {name for name in chains if is_sealed(directory, name)}
    for name in sealed:
        del chains[name]
    torn = 0
    for number in numbers:
        if number >= first:
            torn = _read(directory, number, chains, sealed, last=number == numbers[-1])
    sizes = {number: segment_path(directory, number).stat().st_size for number in segments(directory)}
    spool = Spool(directory, limits, chains, sizes)
    spool.start()
    return Recovered(spool, torn)


def _starting_point(directory: Path, numbers: list[int]) -> tuple[int, dict[str, Chain]]:
    """The segment to read from: the newest but one, for the memory of recent events; older ones only without heads."""
    for number in reversed(numbers[:-1] or numbers):
        try:
            heads = Heads.model_validate_json(saved_path(directory, number).read_bytes())
        except (OSError, ValidationError):
            continue
        return number, {name: restore(name, saved) for name, saved in heads.chains.items()}
    return (numbers[0] if numbers else 1), {}


def _read(directory: Path, number: int, chains: dict[str, Chain], sealed: set[str], *, last: bool) -> int:
    path = segment_path(directory, number)
    good = 0
    for offset, line in complete_lines(path):
        place = f"{path} at byte {offset}"
        try:
            _follow(directory, line, chains, sealed, number)
        except ValidationError as error:
            raise DamagedSpool(f"{place}: not an event; {_REMEDY}") from error
        except BrokenChain as error:
            raise DamagedSpool(f"{place}: {error}; {_REMEDY}") from error
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


def _follow(directory: Path, line: bytes, chains: dict[str, Chain], sealed: set[str], number: int) -> None:
    event = Line.model_validate_json(line)
    if event.sandbox in sealed:
        return
    chain = chains.get(event.sandbox)
    if chain is None:
        if is_sealed(directory, event.sandbox):
            sealed.add(event.sandbox)
            return
        chain = chains[event.sandbox] = Chain(event.sandbox)
    chain.follow(line, event, number)
