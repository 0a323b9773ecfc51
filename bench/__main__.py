"""`make bench`: every figure of the project in one table, and in build/bench/report.json."""

import argparse
import asyncio
import dataclasses
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console
from rich.table import Table

from bench import audit, fence, fleet, lifecycle, microvm, system
from bench.row import Row
from paddock import __version__

PARTS: Final[dict[str, Callable[[], list[Row]]]] = {
    "audit": audit.run,
    "fence": fence.run,
    "fleet": lambda: asyncio.run(fleet.rows()),
    "lifecycle": lambda: asyncio.run(lifecycle.rows()),
    "microvm": lambda: uvloop.run(microvm.rows()),
    "system": lambda: asyncio.run(system.rows()),
}
OUT: Final = Path("build/bench/report.json")
MORE_IS_BETTER: Final = ("alive", "fence_rps", "channel_out_mb_s", "channel_in_mb_s")
BY_P99: Final = ("burst20_first_output_s",)


def _reached(row: Row) -> str:
    if row.target is None:
        return ""
    measured = row.p99 if row.name in BY_P99 else row.p50
    good = measured >= row.target if row.name in MORE_IS_BETTER else measured <= row.target
    return "yes" if good else "NO"


def _as_json(row: Row) -> dict[str, object]:
    return {name: value for name, value in dataclasses.asdict(row).items() if name != "peer" or value is not None}


def main(argv: list[str]) -> int:
    """Run all parts, or those that are named; 0 when they ran, whatever they measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help="all by default")
    chosen = parser.parse_args(argv).part or list(PARTS)
    console = Console(width=120)
    rows: list[Row] = []
    for name in chosen:
        console.print(f"measuring {name} …")
        rows += PARTS[name]()
    table = Table("name", "unit", "p50", "p99", "n", "target", "reached", "peer")
    for row in rows:
        numbers = (f"{row.p50:,.2f}", f"{row.p99:,.2f}", f"{row.n:,}")
        table.add_row(
            row.name,
            row.unit,
            *numbers,
            "" if row.target is None else f"{row.target:g}",
            _reached(row),
            "" if row.peer is None else f"{row.peer:,.2f}",
        )
    console.print(table)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    machine = {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "paddock": __version__,
    }
    console.print(" · ".join(f"{key} {value}" for key, value in machine.items()))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"machine": machine, "rows": [_as_json(row) for row in rows]}, indent=2) + "\n")
    console.print(f"written to {OUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
