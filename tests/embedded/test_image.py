"""Base image: what the builder asks of its tools, and, where it was built, what is in it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.embedded import assets, image
from paddock.embedded.image import parse_sources

LISTING = """Debian|trixie|http://mirror.example/debian|trixie|main
Debian|bookworm|http://mirror.example/debian|bookworm|main
Debian|bookworm|http://mirror.example/debian|bookworm|contrib
Debian|bookworm-updates|http://mirror.example/debian|bookworm-updates|main
Debian|bookworm-security|http://other.example/security|bookworm-security|main
Someone|bookworm|http://vendor.example/apt|bookworm|main
no row
"""


def test_only_this_releases_debian_sources_are_used() -> None:
    suite, lines = parse_sources(LISTING, release="bookworm", keyring="/k.gpg")
    assert suite == "bookworm"
    assert lines == [
        "deb [signed-by=/k.gpg] http://mirror.example/debian bookworm main",
        "deb [signed-by=/k.gpg] http://mirror.example/debian bookworm-updates main",
        "deb [signed-by=/k.gpg] http://other.example/security bookworm-security main",
    ]


def test_another_distribution_with_debian_sources_gets_a_release_of_them() -> None:
    suite, lines = parse_sources(LISTING, release="jammy", keyring="")
    assert suite == "bookworm"
    assert lines[0].startswith("deb http://")


@pytest.mark.parametrize("listing", ["", "Someone|bookworm|http://vendor.example/apt|bookworm|main\n"])
def test_a_machine_without_debian_sources_is_told_so(listing: str) -> None:
    with pytest.raises(PaddockError) as caught:
        parse_sources(listing, release="bookworm", keyring="")
    assert caught.value.kind is ErrorKind.SET_UP


def test_the_tree_is_cleaned_without_touching_apts_own_configuration() -> None:
    # mmdebstrap keeps apt's configuration for the tree in its /tmp; without that file apt works on the machine's lists.
    assert '"$1"/tmp' not in image.CLEAN
    subprocess.run(["sh", "-n", "-c", image.CLEAN], check=True)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """The built base image, unpacked where the tools allow it."""
    try:
        found = Path(assets.load(assets.cache_dir()).images["base"].path)
    except PaddockError:
        pytest.skip("the base image was not built on this machine")
    mounted = tmp_path / "tree"
    mounted.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root to mount an image")
    command = ["mount", "-t", "erofs", "-o", "loop,ro", str(found), str(mounted)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this kernel cannot mount EROFS")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_the_image_has_what_an_agent_needs(tree: Path) -> None:
    for program in ("python3", "git", "curl", "bash"):
        assert (tree / "usr/bin" / program).exists(), program
    assert (tree / "home/agent").stat().st_uid == 1000
    assert (tree / "work").stat().st_uid == 1000
    assert os.readlink(tree / "usr/lib/ssl/cert.pem") == "/etc/ssl/certs/ca-certificates.crt"
    assert "agent:x:1000:" in (tree / "etc/passwd").read_text()
    assert "directory = *" in (tree / "etc/gitconfig").read_text()


def test_the_image_has_one_time_and_no_identity(tree: Path) -> None:
    assert (tree / "etc/machine-id").read_bytes() == b""
    assert {path.lstat().st_mtime for path in (tree / "etc/machine-id", tree / "etc/hosts", tree / "work")} == {
        1_686_355_200.0
    }
    assert not list((tree / "proc").iterdir())
    assert not list((tree / "dev").iterdir())
    assert not list((tree / "var/lib/apt/lists").iterdir())


def test_python_in_the_image_starts_from_compiled_files(tree: Path) -> None:
    (compiled,) = (tree / "usr/lib").glob("python3.*/__pycache__/os.cpython-*[0-9].pyc")
    flags = int.from_bytes(compiled.read_bytes()[4:8], "little")
    assert flags == 0b01, "an unchecked hash (PEP 552): the source's time was changed"
