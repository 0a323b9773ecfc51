"""A pidfd of a living process is nobody's fault; one whose process is gone is named with its holder."""

import os
import subprocess
import sys

from tests.faults.handles import dead_handles
from tests.observer.processes import read_process

# Holds a pidfd of a child: says so while the child lives, and again once it is reaped.
HOLDER = """
import os, subprocess, sys
child = subprocess.Popen(["sleep", "600"])
held = os.pidfd_open(child.pid)
print("alive", flush=True)
sys.stdin.readline()
child.kill()
child.wait()
print("gone", flush=True)
sys.stdin.readline()
os.close(held)
print("closed", flush=True)
sys.stdin.readline()
"""


def test_only_a_handle_of_the_dead_is_named() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLDER], text=True, **pipes) as holder:  # type: ignore[call-overload]
        seen = {}
        for _ in range(3):
            word = holder.stdout.readline().strip()
            process = read_process(holder.pid)
            assert process
            seen[word] = dead_handles([process])
            holder.stdin.write("\n")
            holder.stdin.flush()
    name = os.path.basename(sys.executable)[:15]
    assert seen == {"alive": [], "gone": [f"{name}: 1 pidfds of processes that are gone"], "closed": []}


def test_a_process_that_ended_meanwhile_holds_nothing() -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        process = read_process(child.pid)
        child.kill()
    assert process
    assert dead_handles([process]) == []
