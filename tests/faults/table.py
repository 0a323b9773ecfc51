"""The end of a batch in a table: what was struck, how sandboxes ended, what was left or lost, who came back when."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.faults.checks import Verdict, as_json
from tests.faults.plan import VICTIMS


def table(verdicts: list[Verdict]) -> str:
    """What a person reads."""
    summed = sums(verdicts)
    slow = max((v.seconds for v in verdicts), default=0.0)
    mean = sum(v.seconds for v in verdicts) / max(1, len(verdicts))
    rows = [f"{len(verdicts)} runs, {summed['failed']} failed; {mean:.1f} s each, the longest {slow:.1f} s", ""]
    rows.append(f"  {'victim':<12} {'killed':>6} {'stopped':>7} {'missed':>6}   slowest recovery")
    for name, row in summed["victims"].items():
        slowest = f"{row['slowest_s']:.2f} s" if row["slowest_s"] else "-"
        rows.append(f"  {name:<12} {row['kill']:>6} {row['stop']:>7} {row['missed']:>6}   {slowest}")
    rows += ["", *(f"  {count:>5} sandboxes {outcome}" for outcome, count in summed["outcomes"].items())]
    leaks, lost, gaps, out = (summed[name] for name in ("leaks", "lost", "dropped", "unwritten_tokens"))
    refused, again = summed["requests_refused"], summed["retries"]
    rows += [
        "",
        f"  {leaks} leaks · {lost} lost audit events",
        f"  {gaps} buffered events dropped and counted · {out} tokens left to their time to live",
        f"  {refused} requests refused and tried again · {again} calls of clients repeated",
    ]
    return "\n".join(rows)


def sums(verdicts: list[Verdict]) -> dict[str, Any]:
    """The same for programs."""
    victims = {str(victim): {"kill": 0, "stop": 0, "missed": 0, "slowest_s": 0.0} for victim in VICTIMS}
    for verdict in verdicts:
        for blow in verdict.blows:
            row = victims[blow.fault.victim]
            row[blow.fault.how if blow.pid else "missed"] += 1
            row["slowest_s"] = max(row["slowest_s"], blow.recovered_s or 0.0)
        for victim, took in verdict.gone_after_s.items():
            victims[victim]["slowest_s"] = max(victims[victim]["slowest_s"], took)
    return {
        "runs": len(verdicts),
        "failed": sum(not verdict.passed for verdict in verdicts),
        "victims": victims,
        "outcomes": dict(Counter(outcome for verdict in verdicts for outcome in verdict.outcomes).most_common()),
        "leaks": sum(len(verdict.leaked) for verdict in verdicts),
        "lost": sum(len(verdict.lost) for verdict in verdicts),
        "dropped": sum(verdict.dropped for verdict in verdicts),
        "requests_refused": sum(verdict.refusals for verdict in verdicts),
        "retries": sum(played.retries for verdict in verdicts for played in verdict.played),
        "unwritten_tokens": sum(verdict.unwritten_tokens for verdict in verdicts),
        "seconds": round(sum(verdict.seconds for verdict in verdicts), 1),
        "each": [as_json(verdict) for verdict in verdicts],
    }


def words(verdict: Verdict) -> str:
    """One line for a run that passed; all that is needed to look into one that failed."""
    struck = ", ".join(f"{b.fault.how} {b.fault.victim}" if b.pid else f"({b.fault.victim})" for b in verdict.blows)
    took = f"{verdict.seconds:5.1f} s (settled in {verdict.settled_s:.1f})"
    line = f"run {verdict.plan.number}  {took}  {', '.join(verdict.outcomes) or '-'}  <- {struck}"
    if verdict.passed:
        return f"ok      {line}"
    detail = [str(verdict.plan), *(f"  struck:    {blow}" for blow in verdict.blows)]
    for title, found in (("wrong", verdict.wrong), ("leaked", verdict.leaked), ("lost", verdict.lost)):
        detail += [f"  {title}: {one}" for one in found]
    again = f"  again: python -m tests.faults --only {verdict.plan.number}"
    return "\n".join([f"FAILED  {line}", *detail, f"  logs: {verdict.logs}", again])
