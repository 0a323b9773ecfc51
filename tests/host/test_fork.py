"""A child forked from the warm keeper: what it keeps, what it loses, and how its end is told."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from paddock.host.fork import fork
from paddock.host.processes import Process


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(tmp_path: Path, body: Callable[[], None], *keep: int, home: Path | None = None) -> tuple[int, str]:
    """Fork as a keeper does, whose streams are its descriptors 1 and 2; pytest's own go elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        for number, name in ((1, "stdout"), (2, "stderr")):
            patch.setattr(sys, name, open(number, "w", closefd=False))
        code = ended(fork("paddock-test", body, keep, tmp_path / "log", home))
    return code, (tmp_path / "log").read_text()


def test_a_child_holds_only_the_descriptors_it_was_given(tmp_path: Path) -> None:
    kept, kept_too = os.pipe()
    lost = os.open(os.devnull, os.O_RDONLY)
    high = os.dup2(lost, 900, inheritable=True)

    def body() -> None:
        listed = os.listdir("/proc/self/fd")  # with the descriptor of the listing itself, which is closed again
        print(json.dumps([int(fd) for fd in listed if os.path.lexists(f"/proc/self/fd/{fd}")]))

    code, said = run(tmp_path, body, kept, kept_too)
    for fd in (kept, kept_too, lost, high):
        os.close(fd)
    assert code == 0
    assert sorted(json.loads(said)) == sorted([0, 1, 2, kept, kept_too])


def test_what_a_child_prints_goes_to_its_log_and_it_reads_nothing(tmp_path: Path) -> None:
    def body() -> None:
        print("out", flush=True)
        print("err", file=sys.stderr, flush=True)
        assert os.read(0, 1) == b""

    code, said = run(tmp_path, body)
    assert (code, said) == (0, "out\nerr\n")


def test_a_child_that_raises_leaves_a_traceback_and_1(tmp_path: Path) -> None:
    def body() -> None:
        raise RuntimeError("what went wrong")

    code, said = run(tmp_path, body)
    assert code == 1
    assert "RuntimeError: what went wrong" in said
    assert "Traceback" in said


@pytest.mark.parametrize(("leave", "code"), [(3, 3), ("words", 1), (None, 1)])
def test_a_child_that_leaves_by_itself_ends_with_its_code(leave: object, code: int, tmp_path: Path) -> None:
    def body() -> None:
        sys.exit(leave)  # type: ignore[arg-type]

    assert run(tmp_path, body)[0] == code


def test_a_log_is_added_to_and_not_begun_again(tmp_path: Path) -> None:
    run(tmp_path, lambda: print("first"))
    assert run(tmp_path, lambda: print("second"))[1] == "first\nsecond\n"


def test_a_child_has_its_name_its_session_its_home_and_signals_as_new(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    home = tmp_path / "home"
    home.mkdir()

    def body() -> None:
        name = Path("/proc/self/comm").read_text().strip()
        default = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        print(json.dumps([name, os.getsid(0) == os.getpid(), os.getcwd(), default]))

    try:
        _, said = run(tmp_path, body, home=home)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert json.loads(said) == ["paddock-test", True, str(home), True]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give it up")
def test_privilege_is_given_up_for_good(tmp_path: Path) -> None:
    def body() -> None:
        from paddock.host.fork import drop_privileges

        drop_privileges(62001, 62000)
        status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
        back = []
        for call in (os.setuid, os.setgid):
            try:
                call(0)
                back.append("came back")
            except PermissionError:
                back.append("refused")
        print(json.dumps([os.getresuid(), os.getresgid(), os.getgroups(), status["NoNewPrivs"], back]))

    _, said = run(tmp_path, body)
    assert json.loads(said) == [[62001] * 3, [62000] * 3, [], "1", ["refused", "refused"]]


def test_a_child_tied_to_its_parent_dies_with_it(tmp_path: Path) -> None:
    script = f"""
import os, time
from pathlib import Path
from paddock.host.fork import die_with_parent, fork
parent = os.getpid()
ready, said = os.pipe()
def body():
    die_with_parent(parent)
    os.write(said, b"x")
    time.sleep(60)
pid = fork("paddock-test", body, [said], Path({str(tmp_path / "log")!r}))
os.read(ready, 1)
print(pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    child = Process.of(int(parent.stdout.readline()))
    assert child.alive()
    fd = child.open()
    assert fd is not None
    parent.kill()
    parent.wait()
    import select

    assert select.select([fd], [], [], 5)[0], "the child outlived its parent"
    os.close(fd)


def test_a_child_whose_parent_is_gone_already_ends_at_once(tmp_path: Path) -> None:
    def body() -> None:
        from paddock.host.fork import die_with_parent

        die_with_parent(os.getppid() + 1)
        print("lived on", flush=True)

    assert run(tmp_path, body) == (1, "")
