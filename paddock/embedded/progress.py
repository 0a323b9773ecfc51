"""Long work told as it happens: a spinner and a bar on a terminal, plain lines elsewhere; every step timed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

Say = Callable[[str, float | None], None]
"""What a step is doing, and how much of it is done (0 to 1, None when nobody can tell)."""

QUIET_S: Final = 10.0


class State(StrEnum):
    """How a step came out."""

    DONE = "done"
    KEPT = "kept"
    FAILED = "failed"


@dataclass(slots=True)
class Step:
    """One step while it runs: `say` what it does, `note` what came out. Who says nothing kept what was there."""

    name: str
    show: Say
    state: State = State.KEPT
    detail: str = ""

    def say(self, text: str, fraction: float | None = None) -> None:
        self.state = State.DONE
        self.show(text, fraction)

    def note(self, detail: str) -> None:
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Done:
    """One finished step; time in seconds."""

    name: str
    state: State
    seconds: float
    detail: str


@dataclass(slots=True)
class Steps:
    """Runs steps one after the other and keeps how long each took."""

    console: Console
    done: list[Done] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """One step; an exception that leaves it marks the step failed and goes on to the caller."""
        began = time.monotonic()
        with self._display(name) as show:
            step = Step(name, show)
            try:
                yield step
            except BaseException:
                step.state = State.FAILED
                raise
            finally:
                self._finish(step, time.monotonic() - began)

    def _finish(self, step: Step, seconds: float) -> None:
        done = Done(step.name, step.state, round(seconds, 3), step.detail)
        self.done.append(done)
        colour = {State.DONE: "green", State.KEPT: "dim", State.FAILED: "red"}[done.state]
        took = f"{done.seconds:.1f} s" if done.seconds >= 0.05 else ""
        self.console.print(
            f"  [{colour}]{done.state:<6}[/] {done.name:<18} {took:>8}  [dim]{done.detail}[/]", highlight=False
        )

    @contextmanager
    def _display(self, name: str) -> Iterator[Say]:
        if not self.console.is_terminal:
            yield _Lines(self.console, name)
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(name, total=None)

            def show(text: str, fraction: float | None) -> None:
                known = fraction is not None
                bar.update(
                    task,
                    description=f"{name}: {text}"[:72],
                    total=1.0 if known else None,
                    completed=fraction if fraction is not None else 0,
                )

            yield show


class _Lines:
    """Progress for logs: a line when the words change, and not more often than every few seconds."""

    def __init__(self, console: Console, name: str) -> None:
        self._console, self._name = console, name
        self._last = time.monotonic()
        self._text = ""

    def __call__(self, text: str, fraction: float | None) -> None:
        now = time.monotonic()
        if now - self._last < QUIET_S:
            return
        share = f" {fraction:.0%}" if fraction is not None else ""
        if f"{text}{share}" == self._text:
            return
        self._last, self._text = now, f"{text}{share}"
        self._console.print(f"         {self._name}: {self._text}", highlight=False, markup=False)
