"""The embedded store: sealed values bound to their names, whole files, and clear words when something is off."""

import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.contracts.errors import PaddockError
from paddock.secrets.embedded import EmbeddedStore, load_or_make_store_key
from paddock.secrets.store import SecretUnavailable, check_name, check_value

KEY = b"0" * 32


@pytest.fixture
def store(tmp_path: Path) -> EmbeddedStore:
    return EmbeddedStore(tmp_path / "secrets" / "store.json", KEY)


def test_a_value_comes_back_and_is_nowhere_in_the_file(store: EmbeddedStore, tmp_path: Path) -> None:
    store.put("vcs-token", b"ghp_real")
    assert store.get("vcs-token") == b"ghp_real"
    file = tmp_path / "secrets" / "store.json"
    assert b"ghp_real" not in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    assert [name for name, _ in store.names()] == ["vcs-token"]


def test_the_same_value_is_never_sealed_the_same_way(store: EmbeddedStore, tmp_path: Path) -> None:
    store.put("a", b"same")
    store.put("b", b"same")
    secrets = json.loads((tmp_path / "secrets" / "store.json").read_text())["secrets"]
    assert secrets["a"]["nonce"] != secrets["b"]["nonce"]
    assert secrets["a"]["sealed"] != secrets["b"]["sealed"]


def test_a_sealed_value_that_is_put_under_another_name_does_not_open(store: EmbeddedStore, tmp_path: Path) -> None:
    store.put("low", b"x")
    store.put("high", b"y")
    file = tmp_path / "secrets" / "store.json"
    content = json.loads(file.read_text())
    content["secrets"]["low"] = content["secrets"]["high"]
    file.write_text(json.dumps(content))
    with pytest.raises(SecretUnavailable, match="does not open"):
        store.get("low")


def test_another_key_opens_nothing(store: EmbeddedStore, tmp_path: Path) -> None:
    store.put("a", b"x")
    with pytest.raises(SecretUnavailable, match="does not open"):
        EmbeddedStore(tmp_path / "secrets" / "store.json", b"1" * 32).get("a")


def test_a_damaged_or_missing_file_is_said(store: EmbeddedStore, tmp_path: Path) -> None:
    with pytest.raises(SecretUnavailable, match="not in the store"):
        store.get("a")
    store.put("a", b"x")
    (tmp_path / "secrets" / "store.json").write_text("{")
    with pytest.raises(SecretUnavailable, match="damaged"):
        store.get("a")
    with pytest.raises(SecretUnavailable, match="damaged"):
        store.put("b", b"x")
    assert (tmp_path / "secrets" / "store.json").read_text() == "{", "a damaged file is not written over"


def test_removing_answers_whether_there_was_one(store: EmbeddedStore) -> None:
    store.put("a", b"x")
    assert store.remove("a")
    assert not store.remove("a")


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.json"

    def write(worker: int) -> None:
        for n in range(10):
            EmbeddedStore(path, KEY).put(f"w{worker}-{n}", b"x")

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(EmbeddedStore(path, KEY).names()) == 40


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_leaves_the_file_to_its_owner(store: EmbeddedStore, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    os.chown(tmp_path / "secrets", 4321, 4321)
    file = tmp_path / "secrets" / "store.json"
    store.put("a", b"x")
    assert file.stat().st_uid == 4321, "a new file goes to the owner of its directory"
    os.chown(file, 1234, 1234)
    store.put("a", b"y")
    assert file.stat().st_uid == 1234


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "a/../b", "-a", "a b", "a\n", "x" * 129])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(PaddockError, match="no name"):
        check_name(name)


@pytest.mark.parametrize("value", [b"", b"x" * 65537, b"hush\r\nX-Evil: 1", b"hush\0", b"hush\x7f"])
def test_bad_values_are_refused_without_showing_them(value: bytes) -> None:
    with pytest.raises(PaddockError) as caught:
        check_value(value)
    assert "hush" not in str(caught.value)


@settings(max_examples=50)
@given(st.binary(min_size=1, max_size=200).map(lambda b: bytes(c | 0x20 for c in b).replace(b"\x7f", b"~")))
def test_any_value_that_fits_a_header_comes_back(value: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        store = EmbeddedStore(Path(directory) / "store.json", KEY)
        store.put("a", value)
        assert store.get("a") == value


def test_the_key_is_made_once_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "secrets.key"
    key = load_or_make_store_key(path)
    assert load_or_make_store_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"short")
    with pytest.raises(PaddockError, match="not the key"):
        load_or_make_store_key(path)


def test_an_ended_session_reads_nothing(store: EmbeddedStore) -> None:
    store.put("a", b"x")
    session = store.open("sb-1")
    assert session.read("a").value == b"x"
    assert session.end().proved
    with pytest.raises(SecretUnavailable, match="ended"):
        session.read("a")
