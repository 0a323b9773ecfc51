"""One scan for a secret: memory of processes, environments, files, and texts such as a workflow's history."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import re2

from tests.observer.needles import needles
from tests.observer.processes import pids

BLOCK = 1 << 20
NOTHING = bytes(BLOCK)


@dataclass(frozen=True, slots=True)
class Places:
    """Where to look.

    memory: pids whose whole readable memory is read: the virtual machine monitors', that is, the guests' live memory
    (and with it their disk, which is a file system in memory, their environments and their files).
    environments: pids whose environment and command line must be readable.
    everywhere: also those of every other process, as far as they can be read.
    spared: pids whose environment is left out, each for a reason that the caller says.
    files: files and folders, followed down, never across a symbolic link.
    texts: anything else, by name: histories, logs that came by a stream.
    """

    memory: tuple[int, ...] = ()
    environments: tuple[int, ...] = ()
    everywhere: bool = False
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
    return find_secrets({"": value}, places)[""]


def find_secrets(values: dict[str, bytes], places: Places) -> dict[str, Scan]:
    """Look for several at once, by name, each byte being read once."""
    search = _Search(values)
    for pid in places.memory:
        search.memory(pid)
    for pid in places.environments:
        if pid not in places.spared:
            search.environment(pid, must=True)
    for pid in pids() if places.everywhere else ():
        if pid not in places.spared and pid not in places.environments:
            search.environment(pid, must=False)
    for path in places.files:
        search.files(path)
    for name, text in places.texts:
        search.blocks("text", name, iter([text]))
    return {name: search.scan(name) for name in values}


class _Search:
    """One pass over everything for all needles: an automaton says whether a block holds any, only then which."""

    def __init__(self, values: dict[str, bytes]) -> None:
        self.wanted = [(name, needle) for name, value in values.items() for needle in needles(value)]
        options = re2.Options()
        options.encoding, options.max_mem = re2.Options.Encoding.LATIN1, 256 << 20
        pattern = "|".join(re2.escape(needle.data.decode("latin-1")) for _, needle in self.wanted)
        self.any = re2.compile(pattern.encode("latin-1"), options=options)
        self.found: dict[tuple[str, str, str], Finding] = {}
        self.read: dict[str, int] = {}
        self.unread: list[str] = []

    def scan(self, name: str) -> Scan:
        found = tuple(finding for (whose, _, _), finding in self.found.items() if whose == name)
        return Scan(found, dict(self.read), tuple(self.unread))

    def blocks(self, place: str, where: str, blocks: Iterator[bytes]) -> None:
        """Look through consecutive blocks of one object; a copy across two of them leaves one half whole in one."""
        self.read.setdefault(place, 0)
        for block in blocks:
            self.read[place] += len(block)
            if block and self.any.search(block):
                self.hit(place, where, block)

    def hit(self, place: str, where: str, text: bytes) -> None:
        for name, needle in self.wanted:
            if needle.data in text:
                self.found.setdefault((name, place, where), Finding(place, where, needle.form))

    def memory(self, pid: int) -> None:
        before = self.read.get("memory", 0)
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
            with open(f"/proc/{pid}/mem", "rb", 0) as memory, open(f"/proc/{pid}/pagemap", "rb", 0) as pages:
                for line in maps:
                    words = line.split(None, 5)
                    if words[1].startswith("r") and not line.endswith(("[vvar]", "[vvar_vclock]", "[vsyscall]")):
                        start, end = (int(word, 16) for word in words[0].split("-"))
                        where = f"{name} (pid {pid}) at {words[0]} {' '.join(words[5:])}".rstrip()
                        anonymous = words[4] == "0"
                        self.blocks("memory", where, _ranges(memory.fileno(), pages.fileno(), start, end, anonymous))
        except OSError as error:
            self.unread.append(f"memory of pid {pid}: {error.strerror}")
        else:
            if self.read.get("memory", 0) == before:
                self.unread.append(f"memory of pid {pid}: nothing of it could be read")

    def environment(self, pid: int, must: bool) -> None:
        for part in ("environ", "cmdline"):
            try:
                text = Path(f"/proc/{pid}/{part}").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile: it has neither any more
            except OSError as error:
                self.unread += [f"{part} of pid {pid}: {error.strerror}"] if must else []
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


def _ranges(memory: int, pages: int, start: int, end: int, anonymous: bool) -> Iterator[bytes]:
    """Blocks of a mapping; empty ones where there is nothing to see.

    Pages of anonymous memory that were never touched hold nothing, and are not touched here either. A page that can't
    be read (a device's, or one beyond the end of its file) is stepped over.
    """
    at = start
    while at < end:
        size = min(BLOCK, end - at)
        if anonymous and not any(
            entry >> 62 for entry in array("Q", os.pread(pages, size // 4096 * 8, at // 4096 * 8))
        ):
            yield b""
            at += size
            continue
        try:
            block = os.pread(memory, size, at)
        except OSError:
            block = b""
        yield b"" if block == NOTHING[: len(block)] else block
        at += len(block) or 4096
