"""`paddock secret`, as a person calls it: never an argument, never shown, clear when it cannot."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

from paddock.secrets.embedded import EmbeddedStore, load_or_make_store_key

PROGRAM = [sys.executable, "-m", "paddock.cli.app", "secret"]


def paddock(root: Path, *argv: str, value: bytes = b"") -> tuple[int, str, str]:
    done = subprocess.run([*PROGRAM, *argv, "--state", str(root)], input=value, capture_output=True, timeout=60)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def stored(root: Path, name: str) -> bytes:
    return EmbeddedStore(root / "secrets" / "store.json", load_or_make_store_key(root / "keys" / "secrets.key")).get(
        name
    )


def test_a_value_from_standard_input_or_a_file_is_set_listed_and_removed(tmp_path: Path) -> None:
    assert paddock(tmp_path, "set", "vcs-token", value=b"ghp_real\n")[0] == 0
    (tmp_path / "value").write_bytes(b"from a file\r\n")
    assert paddock(tmp_path, "set", "other", "--file", str(tmp_path / "value"))[0] == 0
    assert stored(tmp_path, "vcs-token") == b"ghp_real"
    assert stored(tmp_path, "other") == b"from a file"
    code, out, _ = paddock(tmp_path, "ls", "--json")
    assert code == 0
    assert [entry["name"] for entry in json.loads(out)] == ["other", "vcs-token"]
    assert "ghp" not in out
    assert paddock(tmp_path, "rm", "vcs-token")[0] == 0
    code, _, err = paddock(tmp_path, "rm", "vcs-token")
    assert code == 2
    assert "no secret vcs-token" in err


def test_at_a_terminal_the_value_is_asked_for_twice_and_not_echoed(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [*PROGRAM, "set", "t", "--state", str(tmp_path)])
    seen = b""
    for prompt in (b"not shown", b"once more"):
        while prompt not in seen:
            seen += os.read(terminal, 1000)
        os.write(terminal, b"typed-value\n")
    try:
        while chunk := os.read(terminal, 1000):
            seen += chunk
    except OSError:
        pass
    assert os.waitpid(pid, 0)[1] == 0
    assert b"typed-value" not in seen
    assert stored(tmp_path, "t") == b"typed-value"


def test_a_value_as_an_argument_is_refused(tmp_path: Path) -> None:
    assert paddock(tmp_path, "set", "a", "the-value")[0] == 2
    assert paddock(tmp_path, "ls", "--json")[1].strip() == "[]"


def test_bad_names_and_values_exit_2_and_show_no_value(tmp_path: Path) -> None:
    assert paddock(tmp_path, "set", "../x", value=b"v")[0] == 2
    code, _, err = paddock(tmp_path, "set", "a", value=b"hush\nline\n")
    assert code == 2
    assert "line break" in err
    assert "hush" not in err
    assert paddock(tmp_path, "set", "a", "--file", str(tmp_path / "none"))[0] in {1, 2}
    assert paddock(tmp_path, "set", "a", value=b"")[0] == 2


def test_with_openbao_configured_it_says_where_secrets_are(tmp_path: Path) -> None:
    config = {"secrets": {"kind": "openbao", "openbao": {"address": "https://bao.example.com"}}}
    (tmp_path / "host.json").write_text(json.dumps(config))
    code, _, err = paddock(tmp_path, "set", "a", value=b"x")
    assert code == 1
    assert "bao kv put secret/paddock/a value=-" in err
