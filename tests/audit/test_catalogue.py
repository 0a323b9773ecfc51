"""The catalogue of event kinds, its printed form, and what it says about an event."""

from pathlib import Path

from paddock.audit.catalogue import KINDS, actor_of, document, problems
from paddock.audit.event import Said

DOCUMENT = Path(__file__).parents[2] / "docs" / "audit-events.md"


def test_the_document_is_what_the_catalogue_prints() -> None:
    made = document()
    assert DOCUMENT.read_text() == made, "write docs/audit-events.md anew: python -m tests.audit.write_catalogue"


def test_every_kind_of_the_catalogue_can_be_said() -> None:
    for name in KINDS:
        Said(kind=name)


def test_what_departs_from_the_catalogue_is_named() -> None:
    assert problems("task.exited", {"task": 1, "exit": 0}) == []
    assert problems("task.exited", {"exit": 0}) == ["task.exited: task is missing"]
    assert problems("task.exited", {"task": "1"}) == ["task.exited: task is not of type int"]
    assert problems("task.exited", {"task": 1, "colour": "red"}) == ["task.exited: colour is not in the catalogue"]
    assert problems("no.such", {}) == ["no.such: not in the catalogue"]


def test_the_guest_acts_at_the_fence_and_nowhere_else() -> None:
    assert actor_of("egress.intent") == "guest"
    assert actor_of("task.started") == "supervisor"
    assert actor_of("audit.sealed") == "recorder"
