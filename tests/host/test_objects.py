"""Objects of a host: whole or not there, each for its own sandbox, and never more than the store may hold."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.host.objects import ObjectStore

ONE, OTHER = "sb-" + "1" * 20, "sb-" + "2" * 20


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def put(store: ObjectStore, data: bytes, sandbox: str = ONE) -> str:
    with store.writer(sandbox) as writer:
        writer.write(data)
        return writer.commit()


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "objects", max_bytes=1000)


def test_an_object_is_there_for_its_own_sandbox_only(store: ObjectStore) -> None:
    name = put(store, b"data")
    assert store.path(ONE, name).read_bytes() == b"data"
    assert store.has(ONE, name)
    assert not store.has(OTHER, name)
    assert store.sandboxes() == (ONE,)


@pytest.mark.parametrize(
    ("announced", "size", "sent", "words"),
    [
        (digest(b"abc"), 3, b"abd", "digest"),
        (digest(b"abc"), 3, b"ab", "announced"),
        (digest(b"abc"), 3, b"abcd", "announced"),
    ],
)
def test_what_is_not_what_was_announced_leaves_nothing(
    store: ObjectStore, announced: str, size: int, sent: bytes, words: str
) -> None:
    def send() -> None:
        with store.writer(ONE, announced, size) as writer:
            writer.write(sent)
            writer.commit()

    with pytest.raises(PaddockError, match=words):
        send()
    assert store.used_bytes == 0
    assert not list(store.folder(ONE).iterdir())


def test_a_full_store_refuses_and_takes_again_after_a_sandbox_is_forgotten(store: ObjectStore) -> None:
    put(store, b"x" * 900)
    with pytest.raises(PaddockError) as full:
        put(store, b"y" * 101, OTHER)
    assert full.value.kind is ErrorKind.DISK_FULL
    assert store.used_bytes == 900
    store.forget(ONE)
    store.forget(ONE)
    assert store.used_bytes == 0
    put(store, b"y" * 1000, OTHER)


def test_the_same_object_twice_counts_once(store: ObjectStore) -> None:
    assert put(store, b"same") == put(store, b"same")
    assert store.used_bytes == 4


async def test_who_waits_is_woken_by_the_arrival(store: ObjectStore) -> None:
    waiting = [asyncio.create_task(store.wait(ONE, digest(b"late"), 5)) for _ in range(3)]
    await asyncio.sleep(0)
    put(store, b"late", OTHER)
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    put(store, b"late")
    assert {path.read_bytes() for path in await asyncio.gather(*waiting)} == {b"late"}


async def test_what_does_not_come_is_an_error_in_words(store: ObjectStore) -> None:
    with pytest.raises(PaddockError) as missing:
        await store.wait(ONE, digest(b"never"), 0.01)
    assert missing.value.kind is ErrorKind.INPUT_MISSING


@pytest.mark.parametrize("name", ["sha256:" + "A" * 64, "sha256:../../x", "x", ""])
def test_a_name_that_is_no_digest_reaches_no_file(store: ObjectStore, name: str) -> None:
    with pytest.raises(ValueError, match="digest"):
        store.path(ONE, name)


@pytest.mark.parametrize("sandbox", ["..", "sb-../../x", "", "sb-" + "g" * 20])
def test_a_name_that_is_no_sandbox_reaches_no_folder(store: ObjectStore, sandbox: str) -> None:
    with pytest.raises(ValueError, match="sandbox"):
        store.folder(sandbox)
