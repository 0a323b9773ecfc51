"""Assets: what set-up built is found again, and what was changed since is noticed."""

from pathlib import Path

import pytest

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.embedded import assets
from paddock.embedded.build import Built, once, run, tool


def made(path: Path, content: bytes) -> Built:
    return once(path, lambda partial: partial.write_bytes(content) and None)


def whole(cache: Path) -> assets.Assets:
    kernel, initrd, image = (made(cache / name, name.encode()) for name in ("vmlinux", "initrd", "base.erofs"))
    listed = assets.Assets(
        kernel=str(kernel.path),
        kernel_digest=kernel.digest,
        initrd=str(initrd.path),
        initrd_digest=initrd.digest,
        agent_digest=initrd.digest,
        qemu="/bin/sh",
        images={"base": assets.ImageAsset(name="base", path=str(image.path), digest=image.digest)},
    )
    assets.save(cache, listed)
    return listed


def refused(cache: Path, *, verify: bool = False) -> PaddockError:
    with pytest.raises(PaddockError) as caught:
        assets.load(cache, verify=verify)
    assert caught.value.kind is ErrorKind.SET_UP
    assert "make setup" in caught.value.info.remedy
    return caught.value


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    listed = whole(tmp_path)
    assert assets.load(tmp_path, verify=True) == listed


def test_a_moved_cache_is_still_whole(tmp_path: Path) -> None:
    whole(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert assets.load(tmp_path / "new", verify=True).kernel == str(tmp_path / "new" / "vmlinux")


def test_an_empty_cache_says_what_to_do(tmp_path: Path) -> None:
    refused(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[", '{"kernel": 1}'])
def test_a_damaged_list_says_what_to_do(tmp_path: Path, text: str) -> None:
    whole(tmp_path)
    (tmp_path / "assets.json").write_text(text)
    refused(tmp_path)


@pytest.mark.parametrize("name", ["vmlinux", "initrd", "base.erofs"])
def test_a_missing_or_shortened_file_is_noticed_at_once(tmp_path: Path, name: str) -> None:
    whole(tmp_path)
    (tmp_path / name).write_bytes(b"short")
    assert name in str(refused(tmp_path))
    (tmp_path / name).unlink()
    assert name in str(refused(tmp_path))


def test_a_changed_byte_is_noticed_when_everything_is_read(tmp_path: Path) -> None:
    whole(tmp_path)
    (tmp_path / "vmlinux").write_bytes(b"VMLINUX")
    assets.load(tmp_path)
    refused(tmp_path, verify=True)


def test_the_cache_is_where_the_user_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert assets.cache_dir() == tmp_path / "paddock"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert assets.cache_dir() == Path.home() / ".cache" / "paddock"


def test_an_artefact_is_made_once(tmp_path: Path) -> None:
    assert made(tmp_path / "a", b"first") == made(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"


@pytest.mark.parametrize("damage", [b"f1rst", b"", b"longer than before"])
def test_a_damaged_artefact_is_made_again(tmp_path: Path, damage: bytes) -> None:
    made(tmp_path / "a", b"first")
    (tmp_path / "a").write_bytes(damage)
    made(tmp_path / "a", b"first")
    assert (tmp_path / "a").read_bytes() == b"first"


def test_a_failed_build_leaves_nothing_and_is_tried_again(tmp_path: Path) -> None:
    def broken(partial: Path) -> None:
        partial.write_bytes(b"half")
        raise OSError("power cut")

    with pytest.raises(OSError, match="power cut"):
        once(tmp_path / "a", broken)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert made(tmp_path / "a", b"whole").path.read_bytes() == b"whole"


def test_what_an_interrupted_build_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".a.partial").write_bytes(b"half")
    (tmp_path / "a.sum").write_text("sha256:0 4\n")
    assert made(tmp_path / "a", b"whole").path.read_bytes() == b"whole"


def test_a_failed_tool_is_told_with_its_last_words() -> None:
    with pytest.raises(PaddockError, match="no space on Mars") as caught:
        run(["sh", "-c", "echo no space on Mars >&2; exit 3"], remedy="go elsewhere")
    assert caught.value.info.remedy == "go elsewhere"


def test_a_missing_tool_names_its_package() -> None:
    with pytest.raises(PaddockError) as caught:
        tool("paddock-no-such-tool", "some-package")
    assert "some-package" in caught.value.info.remedy
