"""Which attack on a chain is noticed, by whom it was made, and in which words. Every cell is run."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from paddock.audit.checkpoint import Checkpoint, sign
from paddock.audit.event import GENESIS, Owner, Said, line
from paddock.audit.tree import Frontier, leaf_hash
from paddock.audit.verify import Verdict, verify
from tests.audit.rig import KEY, KEYS, NAME

SIZE = 64
HELD = 48
OTHER_KEY = Ed25519PrivateKey.generate()


def chain(details: list[dict[str, object]], start: list[bytes] | None = None) -> list[bytes]:
    lines = list(start or [])
    prev = leaf_hash(lines[-1]).hex() if lines else GENESIS
    for detail in details[len(lines) :]:
        kind = "audit.sealed" if detail.get("last") else "egress.intent"
        said = Said.model_validate({"kind": kind, "decision": "allow", "detail": detail})
        made = line(
            said, actor="guest", owner=Owner(), host="h1", sandbox="sb-1", seq=len(lines) + 1, prev=prev, now=1e9
        )
        lines.append(made)
        prev = leaf_hash(made).hex()
    return lines


def root(lines: list[bytes]) -> bytes:
    frontier = Frontier()
    for text in lines:
        frontier.append(leaf_hash(text))
    return frontier.root()


def point(lines: list[bytes]) -> Checkpoint:
    return Checkpoint(f"{NAME}/sb-1", len(lines), root(lines), "2026-11-25T10:00:00.000000Z")


DETAILS: list[dict[str, object]] = [{"n": n, "denied": n == 30} for n in range(SIZE - 1)] + [{"last": True}]
HONEST = chain(DETAILS)
CENTRAL = point(HONEST[:HELD])


@dataclass(frozen=True)
class Evidence:
    lines: list[bytes]
    note: str | None


WHOLE = Evidence(HONEST, sign(point(HONEST), NAME, KEY))


def verdict(evidence: Evidence, *held: Checkpoint) -> Verdict:
    data = b"".join(text + b"\n" for text in evidence.lines)
    return verify(data, evidence.note, KEYS, sandbox="sb-1", held=held, sealed=True)


def changed(at: int, **detail: object) -> list[dict[str, object]]:
    return [*DETAILS[:at], {**DETAILS[at], **detail}, *DETAILS[at + 1 :]]


ATTACKS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "edit one": lambda lines: [*lines[:30], lines[30].replace(b"true", b"false"), *lines[31:]],
    "edit the last": lambda lines: [*lines[:-1], lines[-1].replace(b"true", b"null")],
    "delete one": lambda lines: [*lines[:30], *lines[31:]],
    "delete a run": lambda lines: [*lines[:30], *lines[42:]],
    "swap two": lambda lines: [*lines[:30], lines[31], lines[30], *lines[32:]],
    "insert a forged one": lambda lines: [*lines[:30], lines[30].replace(b"true", b"false"), *lines[30:]],
    "cut the tail": lambda lines: lines[:40],
    "cut inside the last": lambda lines: [*lines[:-1], lines[-1][:20]],
    "rewrite all, recomputed": lambda lines: chain(changed(30, denied=False)),
    "rewrite the unsent, recomputed": lambda lines: chain(changed(55, n=0), lines[:55]),
    "take away everything": lambda lines: [],
}
FORGERS = {
    "only the files": lambda lines: WHOLE.note,
    "takes the signature away": lambda lines: None,
    "signs with another key": lambda lines: sign(point(lines), NAME, OTHER_KEY),
    "signs with the recorder's key": lambda lines: sign(point(lines), NAME, KEY),
}
UNSENT = {"rewrite the unsent, recomputed", "edit the last"}
RECOMPUTED = UNSENT | {"rewrite all, recomputed"}


def test_an_honest_chain_is_whole_also_beside_a_checkpoint_held_elsewhere() -> None:
    found = verdict(WHOLE, CENTRAL)
    assert (found.state, found.events, found.problems, found.signer) == ("whole", SIZE, (), NAME)
    assert found.head == leaf_hash(HONEST[-1]).hex()


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("forger", FORGERS)
def test_no_attack_leaves_a_chain_whole_unless_the_recorders_key_signs_what_was_never_sent(
    attack: str, forger: str
) -> None:
    lines = ATTACKS[attack](list(HONEST))
    evidence = Evidence(lines, FORGERS[forger](lines))
    alone, beside = verdict(evidence), verdict(evidence, CENTRAL)
    has_key = forger == "signs with the recorder's key"
    # A chain alone is a checksum: who can sign can rewrite, and only a checkpoint held elsewhere tells.
    assert (alone.state == "whole") is (has_key and attack in RECOMPUTED)
    assert (beside.state == "whole") is (has_key and attack in UNSENT)
    if forger == "only the files":
        assert alone.state == "broken"


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        ("edit one", "edited at 31"),
        ("edit the last", "rewritten: events 1\u201364"),
        ("delete one", "gap 31: "),
        ("delete a run", "gap 31\u201342"),
        ("swap two", "gap 31: "),
        ("insert a forged one", "forked at 31"),
        ("cut the tail", "cut: the checkpoint covers 64 events, 40 are here"),
        ("cut inside the last", "edited at 64: not an event"),
        ("rewrite all, recomputed", "rewritten: events 1\u201364 are not those of the checkpoint"),
        ("take away everything", "cut: the checkpoint covers 64 events, 0 are here"),
    ],
)
def test_the_words_name_the_place(attack: str, words: str) -> None:
    found = verdict(replace(WHOLE, lines=ATTACKS[attack](list(HONEST))))
    assert any(problem.startswith(words) for problem in found.problems), found.problems


def test_unsigned_and_unknown_key_are_said_as_not_known() -> None:
    unsigned = verdict(replace(WHOLE, note=None))
    assert (unsigned.state, unsigned.problems) == ("unknown", ("unsigned: there is no checkpoint",))
    foreign = verdict(replace(WHOLE, note=sign(point(HONEST), NAME, OTHER_KEY)))
    assert foreign.state == "unknown"
    assert foreign.problems[0].startswith("unknown key")


def test_lines_behind_the_checkpoint_or_behind_the_seal_are_said() -> None:
    early = verdict(replace(WHOLE, note=sign(point(HONEST[:60]), NAME, KEY)))
    assert "unsigned from 61: the checkpoint covers 60 of 64 events" in early.problems
    longer = chain([*DETAILS, {"n": 99}])
    behind = verdict(Evidence(longer, sign(point(longer), NAME, KEY)))
    assert "forged at 65: an event behind the seal" in behind.problems


def test_another_sandboxs_evidence_does_not_pass_for_this_ones() -> None:
    note = sign(replace(point(HONEST), origin=f"{NAME}/sb-2"), NAME, KEY)
    assert "foreign: the checkpoint is of local/h1/sb-2" in verdict(replace(WHOLE, note=note)).problems
    data = b"".join(text + b"\n" for text in HONEST)
    found = verify(
        data, sign(replace(point(HONEST), origin=f"{NAME}/sb-9"), NAME, KEY), KEYS, sandbox="sb-9", sealed=True
    )
    assert found.state == "broken"


def test_hostile_evidence_ends_in_a_verdict() -> None:
    for data in (b"\n" * 1000, b"[" * 100_000 + b"\n", b"\xff\xfe\n", json.dumps({"seq": "1"}).encode() + b"\n"):
        assert verify(data, "\x00" * 100, KEYS, sandbox="sb-1", sealed=True).state == "broken"
