"""Set-up: nothing is done twice, nothing is trusted that changed, and what is missing is said with the way out."""

import io
import os
import stat
import time
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.embedded import assets, packages, setup, temporal_binary, temporal_build, toolchain
from paddock.embedded.packages import Power, SystemPackage
from paddock.embedded.progress import State, Steps
from paddock.embedded.resources import GUEST, TEMPORAL, resource
from paddock.embedded.temporal_binary import Origin

ABSENT = SystemPackage("paddock-absent", ("paddock-absent-program",), "is only a test")


def quiet() -> Console:
    return Console(file=io.StringIO(), width=120)


def say(_text: str, _fraction: float | None) -> None:
    return


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A stand-in for the Temporal CLI that only says its version."""
    path = tmp_path / "bin" / "temporal"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\necho 'temporal version 9.9.9 (Server 1.40.1, UI 3.0.0)'\n")
    path.chmod(0o755)
    return path


class TestWholeRun:
    def test_a_second_run_does_nothing_and_takes_under_two_seconds(self) -> None:
        setup.run(quiet(), lambda _: False)
        began = time.monotonic()
        assert setup.run(quiet(), lambda _: False) == []
        assert time.monotonic() - began < 2

    def test_every_step_is_timed_and_those_with_nothing_to_do_say_so(self) -> None:
        setup.run(quiet(), lambda _: False)
        done = setup.run(quiet(), lambda _: False, verify=True)
        assert [one.name for one in done] == [
            "system packages",
            "guest kernel",
            "guest agent",
            "initrd",
            "base image",
            "Temporal server",
            "check by digest",
        ]
        assert {one.state for one in done[:-1]} == {State.KEPT}
        assert all(one.seconds >= 0 for one in done)


class TestStamp:
    @pytest.fixture
    def made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A cache whose set-up is done, with one file standing for all that it makes."""
        monkeypatch.setattr(assets, "load", lambda _cache: None)
        monkeypatch.setattr(temporal_binary, "load", lambda _cache: None)
        monkeypatch.setattr(packages, "missing", lambda _wanted: ())
        (tmp_path / "kernel").write_bytes(b"kernel")
        files = (setup.File.of(tmp_path / "kernel"),)
        setup._write(tmp_path / setup.STAMP, setup.Stamp(inputs=setup._inputs(setup.Options()), files=files))
        assert setup.unchanged(tmp_path, setup.Options())
        return tmp_path

    def test_a_changed_byte_is_seen_even_with_size_and_time_put_back(self, made: Path) -> None:
        path, before = made / "kernel", (made / "kernel").stat()
        path.write_bytes(b"kernal")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_mtime_ns == before.st_mtime_ns
        assert not setup.unchanged(made, setup.Options())

    def test_a_file_that_is_gone_is_seen(self, made: Path) -> None:
        (made / "kernel").unlink()
        assert not setup.unchanged(made, setup.Options())

    def test_other_options_are_another_set_up(self, made: Path) -> None:
        assert not setup.unchanged(made, setup.Options(qemu=Path("/opt/qemu")))

    def test_what_was_named_once_is_used_the_next_time(self, made: Path) -> None:
        assert setup.remembered(made) == setup.Options()
        setup._write(made / setup.OPTIONS, setup.Options(qemu=Path("/opt/qemu")))
        assert setup.remembered(made).qemu == Path("/opt/qemu")

    def test_a_package_that_was_removed_is_seen(self, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(packages, "missing", lambda _wanted: (ABSENT,))
        assert not setup.unchanged(made, setup.Options())

    def test_a_broken_stamp_counts_as_none(self, made: Path) -> None:
        (made / setup.STAMP).write_text("{")
        assert not setup.unchanged(made, setup.Options())


class TestPackages:
    def test_a_program_that_is_not_there_makes_its_package_missing(self) -> None:
        assert packages.missing([ABSENT]) == (ABSENT,)

    def test_nobody_without_root_or_sudo_installs_and_the_command_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(PaddockError, match="paddock-absent") as caught:
            packages.install((ABSENT,), say, agree=lambda _: True, log=tmp_path / "log", who=Power.NONE)
        assert caught.value.kind is ErrorKind.SET_UP
        assert caught.value.info.remedy == "run as root: apt-get install --no-install-recommends paddock-absent"

    def test_sudo_is_not_used_without_a_yes(self, tmp_path: Path) -> None:
        asked: list[str] = []

        def no(question: str) -> bool:
            asked.append(question)
            return False

        with pytest.raises(PaddockError, match="missing packages"):
            packages.install((ABSENT,), say, agree=no, log=tmp_path / "log", who=Power.SUDO)
        assert "paddock-absent" in asked[0]
        assert not (tmp_path / "log").exists(), "something ran"

    def test_another_system_is_told_which_programs_it_lacks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(packages, "find", lambda _program: None)
        with pytest.raises(PaddockError, match="paddock-absent-program"):
            packages.install((ABSENT,), say, agree=lambda _: True, log=tmp_path / "log", who=Power.ROOT)

    @pytest.mark.parametrize(
        ("line", "seen"),
        [
            ("dlstatus:1:25.0:Retrieving file 1 of 4", ("Retrieving file 1 of 4", 0.25)),
            ("pmstatus:qemu:150:Installing: a:b", ("Installing: a:b", 1.0)),
            ("pmerror:qemu:50:broken", None),
            ("Reading package lists...", None),
            ("dlstatus:1:much:words", None),
        ],
    )
    def test_progress_comes_from_apts_own_status(self, line: str, seen: tuple[str, float] | None) -> None:
        assert packages.parse_status(line) == seen


class TestTemporalProgram:
    def test_one_on_path_is_taken_first(self, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(program.parent))
        found = temporal_binary.provide(tmp_path / "cache", say)
        assert (found.path, found.server, found.origin) == (str(program), "1.40.1", Origin.PATH)
        assert temporal_binary.load(tmp_path / "cache") == found

    def test_one_on_path_that_is_too_old_is_passed_over(
        self, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program.write_text(program.read_text().replace("1.40.1", "1.20.0"))
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        assert temporal_binary._on_path() is None

    def test_a_named_one_is_taken_or_refused_but_never_replaced(self, program: Path, tmp_path: Path) -> None:
        assert temporal_binary.provide(tmp_path, say, named=program).origin is Origin.NAMED
        with pytest.raises(PaddockError, match="no Temporal CLI") as caught:
            temporal_binary.provide(tmp_path, say, named=Path("/bin/true"))
        assert caught.value.info.field == "temporal"

    def test_one_that_went_away_is_an_error_with_a_way_out(self, program: Path, tmp_path: Path) -> None:
        temporal_binary.provide(tmp_path, say, named=program)
        program.unlink()
        with pytest.raises(PaddockError, match="not there any more") as caught:
            temporal_binary.load(tmp_path)
        assert "make setup" in caught.value.info.remedy

    def test_a_download_that_stands_still_is_given_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(temporal_binary, "STALLED_S", 0.3)
        monkeypatch.setattr(temporal_binary, "_DOWNLOADER", "import time; time.sleep(60)")
        began = time.monotonic()
        assert temporal_binary._downloaded(tmp_path, say) is None
        assert time.monotonic() - began < 10

    def test_the_pinned_module_builds_the_program_that_is_kept(self) -> None:
        module = resource(TEMPORAL)
        path = temporal_build.build_path(assets.cache_dir(), module)
        assert path.parent.name.startswith("1.")
        assert toolchain.needed_release(module) >= (1, 26)
        assert "replace github.com/temporalio/cli/cliext =>" in (module / "go.mod").read_text()


class TestToolchain:
    def test_a_go_on_path_that_is_too_old_is_not_used(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        old = tmp_path / "bin" / "go"
        old.parent.mkdir()
        old.write_text("#!/bin/sh\necho go version go1.19.8 linux/amd64\n")
        old.chmod(0o755)
        monkeypatch.setenv("PATH", f"{old.parent}:/usr/bin:/bin")
        fetched: list[Path] = []

        def fetch(folder: Path) -> None:
            fetched.append(folder)
            new = folder / "go" / "bin" / "go"
            new.parent.mkdir(parents=True)
            new.write_text("#!/bin/sh\necho go version go1.30.1 linux/amd64\n")
            new.chmod(0o755)

        monkeypatch.setattr(toolchain, "_install", fetch)
        found = toolchain.find_go(tmp_path, (1, 26, 4), say)
        assert (found.release, found.borrowed) == ((1, 30, 1), False)
        assert fetched == [tmp_path / "go"]

    def test_our_own_go_keeps_its_caches_below_ours(self, tmp_path: Path) -> None:
        env = toolchain.environment(toolchain.Go(Path("/go"), (1, 30), borrowed=False), tmp_path)
        assert all(env[name].startswith(str(tmp_path)) for name in ("GOCACHE", "GOMODCACHE", "GOPATH"))
        assert env["GOTOOLCHAIN"] == "local"


class TestResources:
    def test_a_clone_has_the_guest_agent_and_the_servers_module(self) -> None:
        assert (resource(GUEST) / "go.mod").is_file()
        assert (resource(TEMPORAL) / "go.sum").is_file()

    def test_a_part_that_is_nowhere_is_named_with_the_way_to_it(self) -> None:
        with pytest.raises(PaddockError, match="no-such-part") as caught:
            resource("no-such-part")
        assert "paddock-worker" in caught.value.info.remedy


class TestProgress:
    def test_a_failed_step_says_so_and_passes_its_error_on(self) -> None:
        steps = Steps(quiet())
        with pytest.raises(ValueError, match="broken"), steps.step("kernel"):
            raise ValueError("broken")
        assert [(one.name, one.state) for one in steps.done] == [("kernel", State.FAILED)]

    def test_words_with_brackets_are_shown_as_they_are(self) -> None:
        console = quiet()
        with Steps(console).step("kernel") as step:
            step.say("working")
            step.note("[6.1]")
        assert isinstance(console.file, io.StringIO)
        assert "[6.1]" in console.file.getvalue()


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise PaddockError(ErrorKind.SET_UP, "missing packages: qemu", remedy="run as root: apt-get install qemu")

    from paddock.cli import machine

    monkeypatch.setattr(machine, "run", stop)


@pytest.mark.usefixtures("stopped")
def test_the_command_ends_with_2_and_the_list_when_something_must_be_done_first() -> None:
    import typer

    from paddock.cli.machine import register

    app = typer.Typer()
    register(app)
    result = CliRunner().invoke(app, ["setup"])
    assert result.exit_code == 2
    assert "apt-get install qemu" in result.output


def test_the_executable_bit_of_what_was_recorded_is_looked_at(program: Path, tmp_path: Path) -> None:
    temporal_binary.provide(tmp_path, say, named=program)
    program.chmod(stat.S_IRUSR)
    with pytest.raises(PaddockError, match="not there"):
        temporal_binary.load(tmp_path)
