"""Which emulated clouds `paddock up --emulate` starts, the words for another one, and what a failed start leaves."""

import asyncio
import os
import stat
import time
from pathlib import Path

import pytest

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.embedded import emulate
from paddock.embedded.parts import Parts
from paddock.host.config import HostConfig

HOST = HostConfig(
    environment="local", host="local-1", state="/nowhere", cache="", temporal="127.0.0.1:9", policy_public_key=""
)


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.parametrize(
    ("words", "clouds"), [("", ()), ("aws", ("aws",)), (" gcp , aws,gcp", ("gcp", "aws")), (",,", ())]
)
def test_a_list_of_clouds(words: str, clouds: tuple[str, ...]) -> None:
    assert emulate.chosen(words) == clouds


def test_another_cloud_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(PaddockError, match="onprem"):
        emulate.chosen("aws,ibm")


def test_without_a_clone_it_says_where_the_emulators_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulate, "EMULATOR", "nowhere_at_all.serve")
    with pytest.raises(PaddockError, match="clone"):
        emulate.chosen("aws")


def test_without_root_it_is_refused_and_nothing_is_when_nothing_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PaddockError, match="as root") as refused:
        emulate.chosen("aws")
    assert refused.value.info.kind is ErrorKind.SET_UP
    assert emulate.chosen("") == ()


SAY = "import os, sys, signal\nprint(os.getpid(), flush=True)\nsay = open(sys.argv[sys.argv.index('--say') + 1], 'w')\n"
WAIT = "say.flush()\nsignal.pause()\n"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (WAIT, "says nothing"),
        ("say.write('{')\n" + WAIT, "says nothing"),
        ("", "ended, or says what cannot be read"),
        ("say.write('hello\\n')\n" + WAIT, "ended, or says what cannot be read"),
        ("say.write('1\\n')\n" + WAIT, "ended, or says what cannot be read"),
    ],
)
async def test_an_emulator_that_does_not_come_up_is_ended_and_its_log_named(
    body: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = _other(SAY + body, tmp_path, monkeypatch)
    monkeypatch.setattr(emulate, "READY_S", 3.0)
    began = time.monotonic()
    with pytest.raises(PaddockError, match=words) as failed:
        await emulate.start("aws", tmp_path / "aws", HOST, "127.0.0.1:9", Parts(), tmp_path)
    assert time.monotonic() - began < 20
    assert str(log) in str(failed.value.info.remedy)
    assert not Path(f"/proc/{log.read_text().strip()}").exists()
    assert stat.S_IMODE((tmp_path / "aws" / "template.json").stat().st_mode) == 0o600


async def test_an_emulator_whose_words_are_of_no_use_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = _other(SAY + "say.write('{}\\n')\n" + WAIT, tmp_path, monkeypatch)
    with pytest.raises(KeyError):
        await emulate.start("aws", tmp_path / "aws", HOST, "127.0.0.1:9", Parts(), tmp_path)
    assert not Path(f"/proc/{log.read_text().strip()}").exists()


async def test_an_emulator_that_is_no_longer_wanted_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = _other(SAY + WAIT, tmp_path, monkeypatch)
    starting = asyncio.create_task(emulate.start("aws", tmp_path / "aws", HOST, "127.0.0.1:9", Parts(), tmp_path))
    async with asyncio.timeout(20):
        while not (log.exists() and log.read_text().endswith("\n")):
            await asyncio.sleep(0.02)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert not Path(f"/proc/{log.read_text().strip()}").exists()


def _other(source: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another program in the emulator's place, and its log, which begins with its process id."""
    (directory / "another_emulator.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(directory))
    monkeypatch.setattr(emulate, "EMULATOR", "another_emulator")
    return directory / "aws.log"
