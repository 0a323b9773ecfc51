"""What a person sees: each step with its time as it happens, then the tables."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from paddock.contracts.report import Gone, SandboxReport


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the demo promises, and whether it held."""

    name: str
    held: bool
    detail: str = ""


@dataclass(slots=True)
class Show:
    """The terminal, the clock, and everything that was promised."""

    console: Console
    began: float = field(default_factory=time.monotonic)
    steps_s: dict[str, float] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    _turning: bool = False

    def line(self, text: str, style: str = "") -> None:
        at = f"{time.monotonic() - self.began:7.2f} s"
        self.console.print(f"[dim]{at}[/]  [{style}]{escape(text)}[/]" if style else f"[dim]{at}[/]  {escape(text)}")

    def output(self, text: str) -> None:
        """A line that the sandbox wrote; what it means to a terminal is not done."""
        clean = "".join(c if c.isprintable() else " " for c in text.expandtabs(4))
        self.console.print(f"             [cyan]│[/] {escape(clean)}", highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step and say when it is done; a spinner turns meanwhile on a terminal."""
        start = time.monotonic()
        if self._turning:  # one spinner at a time; a step within a step is timed all the same
            yield
        else:
            self._turning = True
            try:
                with self.console.status(f"{name} …"):
                    yield
            finally:
                self._turning = False
        self.steps_s[name] = round(time.monotonic() - start, 3)
        self.line(f"{name}: {self.steps_s[name]:.2f} s")

    def check(self, name: str, held: bool, detail: str = "") -> bool:
        self.checks.append(Check(name, held, detail))
        mark = "[green]✓[/]" if held else "[bold red]✗[/]"
        self.console.print(f"             {mark} {escape(name)}[dim]{escape(f' · {detail}' if detail else '')}[/]")
        return held

    def timeline(self, chain: Path) -> None:
        """The sandbox's sealed audit chain, one line an event."""
        table = Table(title="Timeline (the sealed audit chain)", box=None, title_justify="left")
        for name in ("at", "event", "decision", "rule", "what"):
            table.add_column(name, overflow="fold")
        for line in chain.read_text().splitlines():
            event: dict[str, Any] = json.loads(line)
            detail = event.get("detail", {})
            words = [str(detail[key]) for key in ("method", "host", "name", "path", "status", "exit") if key in detail]
            colour = {"allow": "green", "deny": "red"}.get(event["decision"], "default")
            decision = f"[{colour}]{escape(event['decision'])}[/]"
            row = (event["ts"][11:23], event["kind"], decision, event["rule"], " ".join(words)[:100])
            table.add_row(*(text if text is decision else escape(text) for text in row))
        self.console.print(table)

    def receipts(self, report: SandboxReport) -> None:
        table = Table(title=f"Receipts of {report.sandbox_id}", box=None, title_justify="left")
        for name in ("resource", "gone", "checked by"):
            table.add_column(name, overflow="fold")
        for receipt in report.receipts:
            colour = "green" if receipt.gone is Gone.PROVED else "red"
            table.add_row(receipt.resource, f"[{colour}]{receipt.gone}[/]", escape(receipt.checked_by))
        self.console.print(table)

    def times(self, report: SandboxReport) -> None:
        table = Table(title="Times", box=None, title_justify="left")
        table.add_column("step")
        table.add_column("seconds", justify="right")
        for name, seconds in self.steps_s.items():
            table.add_row(escape(name), f"{seconds:.2f}")
        for name, ms in report.steps_ms.items():
            table.add_row(f"[dim]  sandbox: {escape(name)}[/]", f"[dim]{ms / 1000:.3f}[/]")
        self.console.print(table)

    @property
    def held(self) -> bool:
        return bool(self.checks) and all(check.held for check in self.checks)
