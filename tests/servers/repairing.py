"""The script of the scripted model: it repairs a project only by what its tools really answered.

It runs the tests, reads the files that the failure names, edits the text that it was given, runs the tests again, then
fetches the addresses of its prompt. Text that never came back can't be repaired: then it says so and stops.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from tests.servers.model import Conversation, Reply, Step, ToolCall

TESTS = "python3 -m unittest 2>&1"
FETCH = "curl -sS -i --max-time 60"
FILE = re.compile(r'^\s*File "(/[^"\n]+\.py)", line \d+', re.MULTILINE)
IMPORT = re.compile(r"^from ([a-z_]+)\.([a-z_]+) import ", re.MULTILINE)
URL = re.compile(r"https?://[^\s\"'<>]+[^\s\"'<>.,;:)]")


@dataclass(frozen=True, slots=True)
class Cure:
    """A kind of mistake, how it looks in a text, and what belongs there instead."""

    mistake: str
    looks: re.Pattern[str]
    instead: str


CURES = (
    Cure(
        "thousands separators are not understood",
        re.compile(r"return Decimal\((\w+)\.strip\(\)\)"),
        r'return Decimal(\1.strip().replace(",", ""))',
    ),
    Cure(
        "a default list is shared by all who use it",
        re.compile(r"(\w+): (list\[\w+\]) = \[\](.*?\n)(.*?)self\.(\w+) = \1\n", re.DOTALL),
        r"\1: \2 | None = None\3\4self.\5 = [] if \1 is None else \1\n",
    ),
    Cure("a loop leaves out the first", re.compile(r"\bin (\w+(?:\.\w+)*)\[1:\]:"), r"in \1:"),
)


def cure(text: str) -> tuple[str, list[str]]:
    """The text with every known mistake mended, and which they were."""
    found = []
    for known in CURES:
        text, count = known.looks.subn(known.instead, text)
        found += [known.mistake] if count else []
    return text, found


def repair(conversation: Conversation) -> Reply:
    """The next move; a pure function of the conversation."""
    steps = conversation.steps
    if any(step.answer is None for step in steps):
        return Reply("A tool gave no answer, so I stop here.")
    runs = [index for index, step in enumerate(steps) if _is(step, "bash", "unittest")]
    if not runs:
        return Reply("I begin with the tests.", (ToolCall("bash", {"command": TESTS}),))
    if not passed(steps[runs[-1]]):
        return _mend(steps, runs)
    for url in URL.findall(conversation.prompt):
        if not any(_is(step, "bash", url) for step in steps):
            return Reply("The tests pass. Now this address.", (ToolCall("bash", {"command": f"{FETCH} '{url}'"}),))
    return Reply(_summary(steps))


def passed(step: Step) -> bool:
    """True for an answer that shows that tests ran and none failed."""
    answer = step.answer or ""
    return answer.startswith("exit 0\n") and bool(re.search(r"^Ran [1-9]\d* tests? in .*\n\nOK", answer, re.MULTILINE))


def _mend(steps: tuple[Step, ...], runs: list[int]) -> Reply:
    texts: dict[str, str] = {}
    for step in steps:  # what a file held when it was last read, or written since
        if step.call.name == "read":
            texts[step.call.arguments["path"]] = step.answer or ""
        elif step.call.name == "write" and (step.answer or "").startswith("wrote "):
            texts[step.call.arguments["path"]] = step.call.arguments["content"]
    wanted = _named(steps[runs[-1]].answer or "", texts)
    if unread := [path for path in wanted if path not in texts]:
        return Reply("I read what the failure leads to.", tuple(ToolCall("read", {"path": path}) for path in unread))
    writes = []
    for path in wanted:
        mended, mistakes = cure(texts[path])
        if mistakes:
            writes.append((ToolCall("write", {"path": path, "content": mended}), f"{path}: {'; '.join(mistakes)}"))
    if writes:
        return Reply("I found these: " + " · ".join(words for _, words in writes), tuple(call for call, _ in writes))
    if any(step.call.name == "write" for step in steps[runs[-1] :]):
        return Reply("Written. The tests again.", (ToolCall("bash", {"command": TESTS}),))
    return Reply("I can't repair this: nothing that I was given to read holds a mistake that I know.")


def _named(output: str, texts: dict[str, str]) -> list[str]:
    """Files that a failure names, and those that these import from their own project."""
    named = [path for path in FILE.findall(output) if "/lib/python" not in path]
    for path in list(named):
        root = posixpath.dirname(posixpath.dirname(path))
        named += [f"{root}/{package}/{module}.py" for package, module in IMPORT.findall(texts.get(path, ""))]
    return list(dict.fromkeys(named))


def _is(step: Step, tool: str, part: str) -> bool:
    return step.call.name == tool and part in next(iter(step.call.arguments.values()), "")


def _summary(steps: tuple[Step, ...]) -> str:
    lines = ["Done."]
    for step in steps:
        if step.call.name == "write":
            lines.append(f"Repaired {step.call.arguments['path']}.")
        elif _is(step, "bash", FETCH):
            url = URL.findall(step.call.arguments["command"])[0]
            status = re.search(r"^HTTP/[\d.]+ (\d{3})", step.answer or "", re.MULTILINE)
            first = (step.answer or "").strip().splitlines()
            lines.append(f"{url}: {f'answered {status[1]}' if status else f'refused ({first[-1]})'}.")
    return "\n".join(lines)
