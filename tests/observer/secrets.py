"""One scan for a secret: memory of processes, environments, files, and texts such as a workflow's history."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.observer.needles import Needle, needles
from tests.observer.processes import pids

BLOCK = 4 << 20
NOTHING = bytes(BLOCK)


@dataclass(frozen=True, slots=True)
class Places:
    """Where to look.

    memory: pids whose whole readable memory is read: the virtual machine monitors', that is, the guests' live memory
    (and with it their disk, which is a file system in memory, their environments and their files).
    environments: pids whose environment and command line are read; None: those of every process of the machine.
    spared: pids left out of `environments`, each for a reason that the caller says.
    files: files and folders, followed down, never across a symbolic link.
    texts: anything else, by name: histories, logs that came by a stream.
    """

    memory: tuple[int, ...] = ()
    environments: tuple[int, ...] | None = ()
    spared: tuple[int, ...] = ()
    files: tuple[Path, ...] = ()
    texts: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """The secret was here, in this form."""

    place: str
    where: str
    form: str

    def __str__(self) -> str:
        return f"{self.place}: {self.where} ({self.form})"


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found, how many bytes of each place were read, and what could not be: its silence proves nothing."""

    found: tuple[Finding, ...]
    read: dict[str, int]
    unread: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Nothing found, and nothing left unread."""
        return not self.found and not self.unread


def find_secret(value: bytes, places: Places) -> Scan:
    """Look for the secret in all its forms in all the places; one finding for each object that holds it."""
    search = _Search(needles(value))
    for pid in places.memory:
        search.memory(pid)
    wanted = tuple(pids()) if places.environments is None else places.environments
    for pid in wanted:
        if pid not in places.spared:
            search.environment(pid)
    for path in places.files:
        search.files(path)
    for name, text in places.texts:
        search.blocks("text", name, iter([text]))
    return Scan(tuple(dict.fromkeys(search.found)), search.read, tuple(search.unread))


class _Search:
    def __init__(self, wanted: tuple[Needle, ...]) -> None:
        self.wanted, self.overlap = wanted, max(len(needle.data) for needle in wanted) - 1
        self.found: list[Finding] = []
        self.read: dict[str, int] = {}
        self.unread: list[str] = []

    def blocks(self, place: str, where: str, blocks: Iterator[bytes]) -> None:
        """Look through consecutive blocks of one object."""
        self.read.setdefault(place, 0)
        tail = b""
        for block in blocks:
            self.read[place] += len(block)
            if block == NOTHING:
                tail = b""
                continue
            text = tail + block
            for needle in self.wanted:
                if needle.data in text:
                    self.found.append(Finding(place, where, needle.form))
                    break
            tail = text[-self.overlap :]

    def memory(self, pid: int) -> None:
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
            memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        except OSError as error:
            self.unread.append(f"memory of pid {pid}: {error.strerror}")
            return
        try:
            for line in maps:
                words = line.split(None, 5)
                if not words[1].startswith("r") or line.endswith(("[vvar]", "[vvar_vclock]", "[vsyscall]")):
                    continue
                start, end = (int(word, 16) for word in words[0].split("-"))
                where = f"{name} (pid {pid}) at {words[0]} {words[5] if len(words) > 5 else ''}".rstrip()
                self.blocks("memory", where, _ranges(memory, start, end))
        finally:
            os.close(memory)
        if not self.read.get("memory"):
            self.unread.append(f"memory of pid {pid}: nothing of it could be read")

    def environment(self, pid: int) -> None:
        for part in ("environ", "cmdline"):
            try:
                text = Path(f"/proc/{pid}/{part}").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile: it has neither any more
            except OSError as error:
                self.unread.append(f"{part} of pid {pid}: {error.strerror}")
                continue
            self.blocks("environment", f"{part} of pid {pid}", iter([text]))

    def files(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            for directory, _, names in os.walk(path):
                for name in names:
                    self.file(Path(directory) / name)
        elif path.exists():
            self.file(path)
        else:
            self.unread.append(f"{path}: there is no such file")

    def file(self, path: Path) -> None:
        if path.is_symlink() or not path.is_file():
            return
        try:
            with path.open("rb") as file:
                self.blocks("file", str(path), iter(lambda: file.read(BLOCK), b""))
        except FileNotFoundError:
            return
        except OSError as error:
            self.unread.append(f"{path}: {error.strerror}")


def _ranges(memory: int, start: int, end: int) -> Iterator[bytes]:
    """Blocks of a mapping; a page that can't be read (a device's, or beyond the end of a file) is stepped over."""
    at = start
    while at < end:
        size = min(BLOCK, end - at)
        try:
            block = os.pread(memory, size, at)
        except OSError:
            block = b""
        if block:
            yield block
            at += len(block)
        else:
            at += 4096
