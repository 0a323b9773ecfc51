"""What a decision costs from 10 to 1,000 rules: `python -m bench.policy`; the goal is at most 1 µs, flat."""

import json
import platform
import statistics
import sys
import time

from paddock.policy.compile import Compiled, compile_policy
from paddock.policy.decide import Question, decide
from paddock.policy.document import parse

GOAL_US = 1.0
_RULE = """    - id: r{i}
      to: {{host: {host}, port: 443, protocol: http}}
      allow: [{{methods: [GET, HEAD], path: /v{v}/*/items/*}}]
      deny: [{{methods: ["*"], path: /v{v}/*/secret/**}}]
"""


def policy(rules: int, *, one_host: bool) -> Compiled:
    """A policy of so many rules, on as many hosts or all on one."""
    text = "apiVersion: paddock/v1\nkind: Policy\nmetadata: {name: bench}\nspec:\n  network:\n"
    for i in range(rules):
        host = "svc.example.com" if one_host else f"svc{i}.example{i % 7}.com"
        text += _RULE.format(i=i, host=host, v=i if one_host else 1)
    return compile_policy(parse(text, "bench.yaml"))


def measure_us(compiled: Compiled, question: Question, loops: int = 5000, rounds: int = 9) -> tuple[float, float]:
    """(median, worst) of `rounds` means over `loops` decisions, in µs of processor time."""
    means = []
    for _ in range(rounds):
        start = time.process_time_ns()
        for _ in range(loops):
            decide(compiled, question)
        means.append((time.process_time_ns() - start) / loops / 1e3)
    return statistics.median(means), max(means)


def rows() -> list[dict[str, object]]:
    """One row a size and question."""
    found: list[dict[str, object]] = []
    for one_host in (False, True):
        for rules in (10, 100, 1000):
            compiled = policy(rules, one_host=one_host)
            last = rules - 1
            host = "svc.example.com" if one_host else f"svc{last}.example{last % 7}.com"
            version = last if one_host else 1
            questions = {
                "allow": Question(host, 443, "http", "GET", f"/v{version}/abc/items/42"),
                "deny-path": Question(host, 443, "http", "GET", f"/v{version}/abc/secret/42"),
                "deny-host": Question("nope.example.org", 443, "http", "GET", "/"),
            }
            for name, question in questions.items():
                median, worst = measure_us(compiled, question)
                shape = "one host" if one_host else "one host a rule"
                found.append({"rules": rules, "shape": shape, "question": name, "median_us": median, "worst_us": worst})
    return found


def main() -> int:
    """Print the table, or JSON with `--json`; 1 when a median misses the goal."""
    table = rows()
    if "--json" in sys.argv[1:]:
        print(json.dumps({"python": platform.python_version(), "machine": platform.machine(), "rows": table}))
    else:
        print(f"Python {platform.python_version()} on {platform.machine()}; µs a decision, goal {GOAL_US}")
        for row in table:
            cells = "{rules:5} rules  {shape:16} {question:10} median {median_us:5.2f}  worst {worst_us:5.2f}"
            print(cells.format(**row))
    return int(any(float(str(row["median_us"])) > GOAL_US for row in table))


if __name__ == "__main__":
    raise SystemExit(main())
