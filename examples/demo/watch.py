"""The observer's part of the demo: is the secret anywhere in reach of the guest, and would it have been found there?"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from examples.demo.settings import Settings
from tests.observer import Places, Scan, find_secrets, guests, processes
from tests.observer.decoys import decoy_value, in_a_file, in_an_environment
from tests.observer.processes import family


@dataclass(frozen=True, slots=True)
class Watched:
    """What the observer found while the guest lived."""

    monitors: tuple[int, ...]
    token: Scan
    key: Scan
    guest_decoy: Scan
    env_decoy: Scan
    planted: Scan
    megabytes: float

    @property
    def seen_in_guest(self) -> bool:
        """A secret was found, or a place could not be read, so that nobody knows."""
        return not (self.token.clean and self.key.clean)

    def decoys_found(self) -> dict[str, bool]:
        """By place: does this very scan find a decoy that is there?"""
        return {
            "guest memory, planted inside the guest": _in(self.guest_decoy, "memory"),
            "guest memory, by a program's environment": _in(self.env_decoy, "memory"),
            "workflow history": _in(self.env_decoy, "text"),
            "run directory": _in(self.planted, "file"),
            "environment of a process": _in(self.planted, "environment"),
        }


@dataclass(slots=True)
class Observer:
    """Looks when told; everything here blocks, so call it in a thread."""

    settings: Settings
    texts: list[tuple[str, bytes]] = field(default_factory=list)

    def look(self) -> Watched:
        """One scan for the secrets and one for each decoy, over the same places, at one moment of the guest's life.

        The scripted model waits meanwhile; under a real one the guests are stopped, or they would go on and end.
        """
        ours = family(os.getpid(), processes())
        monitors = guests(ours)
        with contextlib.nullcontext() if self.settings.model.scripted else _stopped(monitors):
            return self._look(monitors, tuple(ours - {os.getpid()}))

    def _look(self, monitors: tuple[int, ...], ours: tuple[int, ...]) -> Watched:
        settings = self.settings
        planted = decoy_value(f"{settings.seed}-here")
        token, key, inside, environment = (
            settings.ticket_token.encode(),
            settings.model.key.encode(),
            decoy_value(settings.seed),
            settings.env_decoy.encode(),
        )
        wanted = {"token": token, "inside": inside, "environment": environment, "planted": planted}
        # a real model's key is in the environment of the shell that started the demo, by its owner's own wish
        spared = () if settings.model.scripted else _ancestors()
        run = next((settings.state / "host" / "run").iterdir(), settings.state)
        with in_a_file(planted, Path(run) / "decoy"), in_an_environment(planted.decode()):
            places = Places(monitors, ours, True, (), (settings.state,), tuple(self.texts))
            if settings.model.scripted:
                scans = find_secrets({**wanted, "key": key}, places)
            else:
                scans = find_secrets(wanted, places)
                scans |= find_secrets({"key": key}, replace(places, spared=spared))
        megabytes = sum(scans["token"].read.values()) / 1e6
        return Watched(
            monitors=monitors,
            token=scans["token"],
            key=scans["key"],
            guest_decoy=scans["inside"],
            env_decoy=scans["environment"],
            planted=scans["planted"],
            megabytes=megabytes,
        )


def _in(scan: Scan, place: str) -> bool:
    return any(finding.place == place for finding in scan.found)


@contextlib.contextmanager
def _stopped(pids: tuple[int, ...]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _ancestors() -> tuple[int, ...]:
    known, pid, found = processes(), os.getpid(), []
    while pid in known:
        found.append(pid)
        pid = known[pid].parent
    return tuple(found)
