"""kill -9 of the recorder at seeded moments: nothing that was acknowledged is lost, and the chains stay whole."""

import json
import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from paddock.audit.verify import verify_sandbox
from tests.audit.rig import KEYS, Keeper, lines_of, say

Keep = Callable[..., Keeper]


def run(keeper: Keeper, seed: int, first: int, acknowledged: dict[str, set[int]]) -> int:
    """Record from three sandboxes at once until the recorder is killed; answers the next free number."""
    chance = random.Random(seed)
    boxes = {name: keeper.adopt(name) for name in ("sb-a", "sb-b", "sb-c")}
    killer = threading.Timer(chance.uniform(0.005, 0.25), os.kill, (keeper.pid, signal.SIGKILL))
    killer.start()
    number = first
    try:
        while True:
            for box in boxes.values():
                say(box, number=number)
                number += 1
            for name, box in boxes.items():
                answer = box.recv(1 << 16)
                if not answer:
                    return number
                acknowledged[name].add(json.loads(answer)["id"])
    except OSError:
        return number
    finally:
        killer.join()
        keeper.wait()


@pytest.mark.kill
@pytest.mark.parametrize("rounds", [10, pytest.param(150, marks=pytest.mark.nightly)])
def test_no_acknowledged_event_is_lost(keep: Keep, rounds: int) -> None:
    keeper = keep(segment_bytes=1 << 17)
    chance = random.Random(rounds)
    acknowledged: dict[str, set[int]] = {"sb-a": set(), "sb-b": set(), "sb-c": set()}
    number = 1
    for seed in range(rounds):
        number = run(keeper, seed, number, acknowledged)
        tear(keeper.directory, chance)
        keeper.start()
    assert sum(map(len, acknowledged.values())) > 100
    for name, numbers in acknowledged.items():
        path = Path(keeper.seal(name)["path"])
        assert verify_sandbox(path, KEYS).state == "whole"
        stored = [line["detail"]["n"] for line in lines_of(path / "chain.ndjson") if line["kind"] == "egress.request"]
        assert numbers <= set(stored)
        assert len(stored) == len(set(stored))


def tear(directory: Path, chance: random.Random) -> None:
    """Half a line behind the end, as a write that a power cut stopped would leave."""
    newest = max((directory / "spool").glob("*.ndjson"))
    with newest.open("ab") as spool:
        spool.write(b'{"action_id":"torn' * chance.randrange(3))
