"""`python -m tests.faults --runs N --seed S [--only NUMBER] [--json FILE]`: seeded faults against a real Paddock."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

from tests.faults.checks import Verdict
from tests.faults.driver import driving, logs_here
from tests.faults.plan import plan
from tests.faults.table import sums, table, words

SEED = 20261125


def main() -> int:
    """Exit code 0 when every run passed."""
    ask = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    ask.add_argument("--runs", type=int, default=40, help="how many runs, from the seed on (%(default)s)")
    ask.add_argument("--seed", type=int, default=SEED, help="the number of the first run (%(default)s)")
    ask.add_argument("--only", type=int, help="the one run of this number")
    ask.add_argument("--plan", action="store_true", help="print what the runs would do, and do nothing")
    ask.add_argument("--json", type=Path, help="write all that was found to this file")
    ask.add_argument("--logs", type=Path, default=logs_here(), help="logs of failed runs go below here (%(default)s)")
    said = ask.parse_args()
    numbers = [said.only] if said.only is not None else list(range(said.seed, said.seed + said.runs))
    if said.plan:
        print("\n".join(str(plan(number)) for number in numbers))
        return 0
    quiet = TelemetryFilter(core_level="ERROR", other_level="ERROR")  # a server that is away is what this is about
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=LoggingConfig(filter=quiet))))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is ended on the way out
    verdicts: list[Verdict] = []
    try:
        with driving(said.logs) as driver:
            for number in numbers:
                verdicts.append(driver.run(number))
                print(words(verdicts[-1]), flush=True)
    finally:
        print(f"\n{table(verdicts)}")
        if said.json:
            said.json.write_text(json.dumps(sums(verdicts), indent=1))
    return 0 if all(verdict.passed for verdict in verdicts) else 1


if __name__ == "__main__":
    raise SystemExit(main())
