"""The scan finds a decoy in every place and every form in which it could be, and says what it could not read."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.observer import Places, decoys, find_secret, find_secrets, guests
from tests.observer.needles import needles

TRACED = pytest.mark.skipif(
    Path("/proc/sys/kernel/yama/ptrace_scope").exists()
    and Path("/proc/sys/kernel/yama/ptrace_scope").read_text().strip() not in ("0", "1")
    and os.geteuid() != 0,
    reason="this machine lets nobody read another process's memory",
)


@pytest.fixture
def secret() -> bytes:
    """Of every kind of character that the forms write differently; never twice the same."""
    return f'pd+{secrets.token_urlsafe(24)}/ü=%&"'.encode()


FORMS = sorted(decoys.FORMS)


@pytest.mark.parametrize("form", FORMS)
def test_a_decoy_is_found_in_a_file_in_each_form(form: str, secret: bytes, tmp_path: Path) -> None:
    with decoys.in_a_file(decoys.FORMS[form](secret), tmp_path / "deep.log"):
        scan = find_secret(secret, Places(files=(tmp_path,)))
    assert [(finding.place, finding.form) for finding in scan.found] == [("file", form)]


@TRACED
@pytest.mark.parametrize("form", FORMS)
def test_a_decoy_is_found_in_a_monitors_memory_in_each_form(form: str, secret: bytes, tmp_path: Path) -> None:
    with decoys.in_memory_of_a_monitor(decoys.FORMS[form](secret), tmp_path) as pid:
        assert pid in guests()
        assert pid in guests({pid})
        assert pid not in guests(set())
        scan = find_secret(secret, Places(memory=(pid,)))
    assert form in {finding.form for finding in scan.found}
    assert scan.read["memory"] > 1 << 20


@TRACED
def test_memory_that_never_held_the_secret_is_clean(secret: bytes, tmp_path: Path) -> None:
    with decoys.in_memory_of_a_monitor(b"something else altogether", tmp_path) as pid:
        assert find_secret(secret, Places(memory=(pid,))).clean


def test_a_decoy_is_found_in_an_environment_of_any_process(secret: bytes) -> None:
    with decoys.in_an_environment(secret.decode()) as pid:
        scan = find_secret(secret, Places(everywhere=True))
        assert [finding.where for finding in scan.found] == [f"environ of pid {pid}"]
        assert find_secret(secret, Places(everywhere=True, spared=(pid,))).found == ()


def test_a_decoy_is_found_on_a_command_line(secret: bytes) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()", secret.decode()], stdin=subprocess.PIPE) as child:
        scan = find_secret(secret, Places(environments=(child.pid,)))
        assert [finding.where for finding in scan.found] == [f"cmdline of pid {child.pid}"]
        assert child.stdin is not None
        child.stdin.write(b"\n")


def test_a_decoy_is_found_in_a_text_such_as_a_history(secret: bytes) -> None:
    scan = find_secret(secret, Places(texts=(("history of x", b"..." + decoys.FORMS["base64"](secret) + b"..."),)))
    assert [finding.where for finding in scan.found] == ["history of x"]


@pytest.mark.parametrize("skipped", range(6))
def test_base64_is_found_wherever_the_secret_stands_in_the_encoded_text(skipped: int, secret: bytes) -> None:
    import base64

    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(b"x" * skipped + secret + b"y" * (skipped % 4))
        assert find_secret(secret, Places(texts=(("t", text),))).found


def test_a_copy_across_two_pages_that_lie_apart_is_found(secret: bytes) -> None:
    for cut in range(len(secret)):
        apart = secret[:cut] + bytes(100) + secret[cut:]
        assert find_secret(secret, Places(texts=(("t", apart),))).found, cut


def test_a_copy_across_two_blocks_of_a_file_is_found(secret: bytes, tmp_path: Path) -> None:
    for cut in range(len(secret)):
        (tmp_path / "f").write_bytes(b"x" * ((1 << 20) - cut) + secret)
        assert find_secret(secret, Places(files=(tmp_path / "f",))).found, cut


def test_a_hole_of_zeros_hides_nothing_behind_it(secret: bytes, tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.seek(40 << 20)
        file.write(secret)
    assert find_secret(secret, Places(files=(tmp_path / "f",))).found


def test_several_secrets_are_looked_for_at_once_and_told_apart(tmp_path: Path) -> None:
    values = {name: f"{name}-{secrets.token_hex(16)}".encode() for name in ("one", "two", "three")}
    (tmp_path / "f").write_bytes(values["one"] + b" " + values["two"].hex().encode())
    scans = find_secrets(values, Places(files=(tmp_path,)))
    assert {name: [f.form for f in scan.found] for name, scan in scans.items()} == {
        "one": ["raw"],
        "two": ["hex"],
        "three": [],
    }


def test_an_environment_that_must_be_read_and_can_not_is_said(secret: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert find_secret(secret, Places(environments=(os.getpid(),))).unread
    assert find_secret(secret, Places(everywhere=True)).unread == ()


def test_what_can_not_be_read_is_said_and_is_not_clean(secret: bytes, tmp_path: Path) -> None:
    scan = find_secret(secret, Places(memory=(2**22 + 1,), files=(tmp_path / "missing",)))
    assert len(scan.unread) == 2
    assert not scan.clean


def test_a_secret_too_short_to_be_told_from_chance_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        needles(b"hunter2")


def test_the_guests_decoy_is_the_one_that_is_looked_for(tmp_path: Path) -> None:
    command = [sys.executable, *decoys.guest_command("seed", str(tmp_path / "decoy"))[1:]]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "planted\n"
    assert (tmp_path / "decoy").read_bytes() == decoys.decoy_value("seed")
    assert decoys.decoy_value("seed") not in " ".join(command).encode()
