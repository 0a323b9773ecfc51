"""An emulated machine is root's process: whose configuration it takes, and that it never outlives its emulator."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from paddock.contracts.ground import Attempt
from paddock.embedded.assets import cache_dir
from paddock.embedded.emulate import OF_THE_MACHINE
from paddock.host.config import HostConfig
from providers.contract import HostOrder
from providers.registry import provider
from tests.clouds.cloud import Machine
from tests.clouds.host import Hosts, check, told
from worker.settings import Settings

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="a namespace of process ids needs root")
BUILT = pytest.mark.skipif(not (cache_dir() / "assets.json").exists(), reason="kernel and image are not built")
PATIENCE_S = 30.0
HOST = HostConfig(
    environment="local",
    host="local-1",
    state="/nowhere",
    cache=str(cache_dir()),
    temporal="127.0.0.1:9",
    relay_token_file="/nowhere/token",
    policy_public_key="",
)
# As `paddock up --emulate` makes it.
TEMPLATE: dict[str, Any] = HOST.model_dump(mode="json", exclude=set(OF_THE_MACHINE)) | {"slots": 2}


def until(condition: Callable[[], bool], words: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, words
        time.sleep(0.02)


def user_data(**changes: object) -> str:
    """What the environment's worker tells a machine, with changes to the table it has of its hosts."""
    settings = Settings(environment="aws", host=TEMPLATE | changes)
    order = Attempt.model_construct(environment="aws", host="h-1", attempt=3)
    return settings.user_data()(order)


def machine(id: str, data: str) -> Machine:
    return Machine(id, id, "zone", {}, data)


def test_what_the_environments_worker_tells_is_taken() -> None:
    config = told(user_data())
    check(config, TEMPLATE)
    assert (config["environment"], config["host"], config["attempt"]) == ("aws", "h-1", 3)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("relay_token_file", {"relay_token_file": "/etc/shadow"}),
        ("qemu", {"qemu": "/tmp/mine"}),
        ("temporal", {"temporal": "127.0.0.1:10"}),
        ("secrets", {"secrets": {"kind": "embedded", "file": "/etc/shadow"}}),
        ("audit_max_bytes", {"audit_max_bytes": float(1 << 30)}),
    ],
)
def test_another_configuration_never_boots(
    key: str, changes: dict[str, object], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hosts = Hosts(tmp_path / "machines", 100_000, TEMPLATE)
    hosts.boot(machine("i-1", user_data(**changes)))
    hosts.over()
    hosts.run()
    assert hosts.pids() == {}
    assert not (tmp_path / "machines").exists()
    assert f"i-1: {key}: not as in the environment's template" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"relay_token_file": None}, "relay_token_file"),
        ({"more": 1}, "more"),
        ({"slots": True}, "slots"),
        ({"host": "../h"}, "pattern"),
        ({"environment": "*"}, "pattern"),
        ({"environment": None}, "string"),
    ],
)
def test_only_who_it_is_is_a_machines_own(changes: dict[str, object], words: str) -> None:
    config = {key: value for key, value in (told(user_data()) | changes).items() if value is not None}
    with pytest.raises(ValueError, match=words):
        check(config, TEMPLATE | ({"slots": 1} if "slots" in changes else {}))


@pytest.mark.parametrize(
    "data",
    [
        "",
        "#!/bin/sh\n",
        "#cloud-config\n: [\n",
        "#cloud-config\n- 1\n",
        "#cloud-config\nwrite_files: 1\n",
        "#cloud-config\nwrite_files: [1, {path: /etc/paddock/host.json}]\n",
        "#cloud-config\nwrite_files: [{path: /etc/paddock/host.json, content: '[]'}]\n",
    ],
)
def test_user_data_of_another_kind_is_refused_in_words(data: str) -> None:
    with pytest.raises(ValueError):
        told(data)


def test_a_machine_that_ends_before_it_starts_never_starts(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path / "machines", 100_000, TEMPLATE)
    hosts.boot(machine("i-1", user_data()))
    hosts.end("i-1")
    hosts.over()
    hosts.run()
    assert hosts.pids() == {}
    assert not (tmp_path / "machines").exists()


def test_a_machine_that_ends_while_it_starts_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts, ending, left = Hosts(tmp_path / "machines", 100_000, TEMPLATE), threading.Event(), list[int]()

    def end() -> None:
        ending.set()
        hosts.end("i-1")
        hosts.over()

    def spawn(argv: list[str], log: Path) -> "subprocess.Popen[bytes]":
        threading.Thread(target=end).start()
        assert ending.wait(PATIENCE_S)
        with log.open("wb") as out:
            process = subprocess.Popen(["sleep", "60"], stdout=out, start_new_session=True)
        left.append(process.pid)
        return process

    monkeypatch.setattr("tests.clouds.host.spawn", spawn)
    hosts.boot(machine("i-1", user_data()))
    hosts.run()
    assert hosts.pids() == {}
    assert len(left) == 1
    assert not Path(f"/proc/{left[0]}").exists()


class Emulator:
    """`python -m tests.clouds.serve aws`, as `paddock up --emulate aws` starts it."""

    def __init__(self, directory: Path) -> None:
        template, said = directory / "template.json", directory / "said"
        template.write_text(json.dumps(TEMPLATE))
        self.log = directory / "log"
        argv = [sys.executable, "-m", "tests.clouds.serve", "aws", "--home", str(directory / "machines")]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*argv, "--uids", "150000", "--template", str(template), "--say", str(said)], stdout=log, stderr=log
            )
        until(lambda: said.exists() and said.read_bytes().endswith(b"\n"), "the emulator is ready")
        self.said = json.loads(said.read_bytes())

    def order(self, data: str) -> HostOrder:
        return HostOrder(
            controller="c",
            environment="aws",
            host="h-1",
            attempt=1,
            size=self.said["size"],
            zone=self.said["zones"][0],
            deadline=datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2),
            user_data=data,
        )

    def machines(self) -> list[int]:
        """The emulator's children that are machines."""
        return [pid for pid in children(self.process.pid) if Path(f"/proc/{pid}/comm").read_text() == "unshare\n"]


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def inside(namespace: str) -> list[int]:
    """Processes that live in this namespace of process ids."""
    found = []
    for one in Path("/proc").iterdir():
        try:
            if one.name.isdigit() and os.readlink(one / "ns" / "pid") == namespace:
                found.append(int(one.name))
        except OSError:  # it ended meanwhile
            continue
    return found


@contextlib.contextmanager
def kept(pid: int) -> Iterator[None]:
    """Whatever a test finds, this process is not left."""
    handle = os.pidfd_open(pid)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    one = Emulator(tmp_path)
    for name, value in one.said["environ"].items():
        monkeypatch.setenv(name, value)
    yield one
    one.process.terminate()
    one.process.wait(PATIENCE_S)


@ROOT
@BUILT
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_of_a_machine_outlives_its_emulator(emulator: Emulator, how: signal.Signals) -> None:
    provider("aws", emulator.said["settings"]).create(emulator.order(user_data()))
    until(lambda: len(emulator.machines()) == 1, "the machine starts")
    (outer,) = emulator.machines()
    with kept(outer):
        until(lambda: children(outer) != [], "its first process starts")
        (first,) = children(outer)
        namespace = os.readlink(f"/proc/{first}/ns/pid")
        assert namespace != os.readlink("/proc/self/ns/pid")
        until(lambda: len(inside(namespace)) >= 4, "the host and its services run")
        emulator.process.send_signal(how)
        emulator.process.wait(PATIENCE_S)
        until(lambda: not inside(namespace) and not Path(f"/proc/{outer}").exists(), "every process is gone")


@ROOT
def test_the_emulator_itself_refuses_another_configuration(emulator: Emulator) -> None:
    other = user_data(relay_token_file="/etc/shadow")
    provider("aws", emulator.said["settings"]).create(emulator.order(other))
    until(lambda: b"relay_token_file: not as in" in emulator.log.read_bytes(), "it is refused in words")
    assert emulator.machines() == []
