"""One `paddock up` for a whole module of tests: the real program, as a user starts it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PADDOCK = str(Path(sys.executable).parent / "paddock")


@dataclass
class Up:
    """A running `paddock up` and how to talk to it."""

    state: Path
    config: Path | None = None
    process: "subprocess.Popen[str] | None" = None
    info: dict[str, object] = field(default_factory=dict)

    def start(self) -> "Up":
        argv = [PADDOCK, "up", "--state", str(self.state), "--json"]
        if self.config:
            argv += ["--config", str(self.config)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"paddock up ended with {self.process.wait()}"
        self.info = json.loads(line)
        return self

    def stop(self) -> int:
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(90)

    @property
    def pids(self) -> dict[str, int]:
        """Process ids as the keeper and the parent say them now."""
        return {**self.info["pids"]}  # type: ignore[dict-item]

    def run(
        self, *words: str, check: bool = False, timeout: float = 120, **options: object
    ) -> "subprocess.CompletedProcess[str]":
        """`paddock WORDS` against this state."""
        environment = {**os.environ, "PADDOCK_STATE": str(self.state), "NO_COLOR": "1"}
        done = subprocess.run(
            [PADDOCK, *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
            **options,  # type: ignore[call-overload]
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def report(self, *words: str, timeout: float = 120) -> tuple[int, dict[str, object], str]:
        """`paddock run --json WORDS`: exit code, the report, and what came before it on standard output."""
        done = self.run("run", "--json", *words, timeout=timeout)
        lines = done.stdout.splitlines()
        assert lines, done.stderr
        return done.returncode, json.loads(lines[-1]), "\n".join(lines[:-1])


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """`paddock up` on a fresh state directory."""
    here = Up(tmp_path_factory.mktemp("state")).start()
    yield here
    assert here.stop() == 0
