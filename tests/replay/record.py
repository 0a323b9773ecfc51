"""`python -m tests.replay.record`: play every scenario on a real server and write the histories and fingerprints."""

import argparse
import asyncio
import json
import logging
import shutil
import sys
import time

from paddock.temporal.quiet import quiet
from tests.replay import cleanup, hosts, pools, scenarios
from tests.replay.history import FINGERPRINTS, HISTORIES, commands, folded, save
from tests.replay.stage import SCENARIOS, play_all
from tests.replay.world import world

__all__ = ["cleanup", "hosts", "pools", "scenarios"]  # importing them registers their scenarios


async def record(chosen: list[str]) -> None:
    began = time.monotonic()
    async with world() as here:
        played = await play_all(here, [SCENARIOS[name] for name in chosen])
    everything = len(chosen) == len(SCENARIOS)
    if everything:
        shutil.rmtree(HISTORIES, ignore_errors=True)
    kept = {} if everything or not FINGERPRINTS.exists() else json.loads(FINGERPRINTS.read_text())
    for name, history in played.items():
        size = save(name, history)
        kept[name] = folded(commands(history))
        print(f"{name:<48} {len(history.events):>6} events {size:>8} bytes")
    FINGERPRINTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    print(f"{len(played)} histories in {time.monotonic() - began:.0f} s")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.replay.record", description=__doc__)
    parser.add_argument("scenario", nargs="*", help="all by default; one alone is for a look, not for a commit")
    logging.getLogger("temporalio").setLevel(logging.CRITICAL)  # failures are played on purpose
    quiet()
    asyncio.run(record(parser.parse_args(argv).scenario or list(SCENARIOS)))


if __name__ == "__main__":
    main(sys.argv[1:])
