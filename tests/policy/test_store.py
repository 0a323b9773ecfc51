"""The store: revisions are written once, whole, and found again."""

import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.policy.compile import deny_all
from paddock.policy.problems import PolicyError
from paddock.policy.store import PolicyStore
from tests.policy.documents import WHOLE

NOW = datetime(2026, 1, 2, tzinfo=UTC)
OTHER = WHOLE.replace("acme", "acmf")


@pytest.fixture
def store(tmp_path: Path) -> PolicyStore:
    return PolicyStore(tmp_path / "policies", clock=lambda: NOW)


def test_each_new_text_is_the_next_revision_and_both_are_kept(store: PolicyStore) -> None:
    first, second = store.apply(WHOLE, "a.yaml", "ann"), store.apply(OTHER, "b.yaml", "bob")
    assert (first[:2], second[:2]) == (("fixer", 1), ("fixer", 2))
    assert store.get("fixer").digest == second[2]
    assert store.get("fixer@1").digest == first[2] != second[2]
    assert store.get("fixer@1").revision == 1


def test_a_revision_keeps_its_text_author_and_time(store: PolicyStore) -> None:
    store.apply(WHOLE, "a.yaml", "ann")
    kept = store.revision("fixer")
    assert (kept.text, kept.file, kept.author, kept.at) == (WHOLE, "a.yaml", "ann", NOW)


def test_the_same_text_again_keeps_its_revision(store: PolicyStore) -> None:
    assert store.apply(WHOLE, "a.yaml", "ann") == store.apply(WHOLE, "a.yaml", "bob")
    assert store.revision("fixer").author == "ann"


def test_going_back_to_an_older_text_is_a_new_revision(store: PolicyStore) -> None:
    for text in (WHOLE, OTHER, WHOLE):
        store.apply(text, "a.yaml", "ann")
    assert store.get("fixer").revision == 3


def test_a_bad_document_changes_nothing(store: PolicyStore) -> None:
    store.apply(WHOLE, "a.yaml", "ann")
    with pytest.raises(PolicyError):
        store.apply(OTHER.replace("443", "x"), "a.yaml", "ann")
    assert store.get("fixer").revision == 1


def test_deny_all_is_there_without_any_file(store: PolicyStore) -> None:
    assert store.get("deny-all") == deny_all()
    assert store.names() == ["deny-all"]


@pytest.mark.parametrize(
    "reference", ["nope", "fixer@2", "fixer@0", "deny-all@1", "../fixer", "", "fixer@", "Fixer", "fixer@x"]
)
def test_an_unknown_policy_is_an_error_that_lists_those_there_are(store: PolicyStore, reference: str) -> None:
    store.apply(WHOLE, "a.yaml", "ann")
    with pytest.raises(PaddockError, match="there are: deny-all, fixer") as caught:
        store.get(reference)
    assert caught.value.kind is ErrorKind.UNKNOWN_POLICY


def test_a_tampered_revision_is_not_used(store: PolicyStore, tmp_path: Path) -> None:
    store.apply(WHOLE, "a.yaml", "ann")
    path = tmp_path / "policies/fixer/1.json"
    kept = json.loads(path.read_text())
    kept["policy"]["rules"][0]["host"] = "evil.example.com"
    path.write_text(json.dumps(kept))
    with pytest.raises(PaddockError, match="damaged"):
        store.get("fixer")


def test_a_torn_draft_is_no_revision(store: PolicyStore, tmp_path: Path) -> None:
    store.apply(WHOLE, "a.yaml", "ann")
    (tmp_path / "policies/fixer/.2.json.999").write_text("{")
    assert store.get("fixer").revision == 1
    assert store.apply(OTHER, "a.yaml", "ann")[1] == 2


def test_nothing_but_revisions_is_left_in_the_directory(store: PolicyStore, tmp_path: Path) -> None:
    store.apply(WHOLE, "a.yaml", "ann")
    assert [p.name for p in (tmp_path / "policies/fixer").iterdir()] == ["1.json"]
    assert (tmp_path / "policies/fixer/1.json").stat().st_mode & 0o777 == 0o600


def test_a_failing_disk_is_an_error_that_says_nothing_was_changed(
    store: PolicyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PaddockError, match="No space left") as caught:
        store.apply(WHOLE, "a.yaml", "ann")
    assert caught.value.kind is ErrorKind.DISK_FULL
    monkeypatch.undo()
    assert store.names() == ["deny-all"]


def test_concurrent_authors_never_share_or_lose_a_revision(store: PolicyStore) -> None:
    got: list[int] = []

    def work(number: int) -> None:
        for i in range(5):
            got.append(store.apply(WHOLE.replace("acme", f"a{number}x{i}"), "a.yaml", "ann")[1])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(got) == list(range(1, 21))
