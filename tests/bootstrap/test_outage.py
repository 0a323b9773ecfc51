"""A store that is sealed, silent or gone, a cloud whose keys cannot be had: tried again, and told in clear words."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.bootstrap.bao import Bao, BaoConfig
from paddock.bootstrap.enrol import Enrolled
from paddock.bootstrap.errors import NotYet
from paddock.contracts.report import Gone
from tests.bootstrap.rig import Cloud, Environment, Machine, Store
from tests.clouds.metadata import raw
from tests.secrets.rig import Bao as Tls
from tests.secrets.rig import until


@pytest.fixture
def fresh(fresh_store: Store, tmp_path: Path) -> Iterator[Environment]:
    cloud = Cloud("gcp")
    yield Environment(fresh_store, cloud, tmp_path)
    cloud.close()


def running(env: Environment, host: str, machine: Machine) -> tuple[threading.Thread, list[Enrolled]]:
    enrolment = env.enrolment(machine, env.config(host, patience_s=60.0))
    done: list[Enrolled] = []
    thread = threading.Thread(target=lambda: done.append(enrolment.run()))
    thread.start()
    return thread, done


def test_a_sealed_store_is_waited_for_and_named(fresh: Environment) -> None:
    host, machine = fresh.opened()
    fresh.store.seal()
    with pytest.raises(NotYet, match="sealed or down") as caught:
        fresh.enrolment(machine, fresh.config(host, patience_s=0.5)).run()
    assert "bao operator unseal" in caught.value.info.remedy
    with pytest.raises(NotYet, match="sealed or down"):
        fresh.grants.close(host, 1, "terminated")
    before = len(machine.server.asked)
    thread, done = running(fresh, host, machine)
    until(lambda: len(machine.server.asked) >= before + 2, 30)
    fresh.store.unseal()
    thread.join(60)
    assert [one.name for one in done] == [f"{host}.1"]
    assert fresh.grants.close(host, 1, "joined")[0].gone is Gone.PROVED


def test_a_store_that_is_gone_or_hangs_is_told_within_the_patience(fresh: Environment) -> None:
    host, machine = fresh.opened()
    config = fresh.config(host, patience_s=1.0)
    config = config.model_copy(update={"store": fresh.bao.model_copy(update={"timeout_s": 0.5})})
    os.kill(fresh.store.process.pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(NotYet, match=r"the secret store did not answer within 0\.5 s"):
        fresh.enrolment(machine, config).run()
    assert time.monotonic() - began < 10
    os.kill(fresh.store.process.pid, signal.SIGCONT)
    fresh.store.close()
    with pytest.raises(NotYet, match="the secret store cannot be reached"):
        fresh.enrolment(machine, config).run()


def test_keys_that_the_store_cannot_get_are_not_called_a_forgery(fresh: Environment) -> None:
    host, machine = fresh.opened()
    fresh.cloud.close_keys()
    with pytest.raises(NotYet, match="cannot get the keys by which this machine's cloud signs"):
        fresh.enrolment(machine, fresh.config(host)).run()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "speaks no HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "speaks no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<html></>", "is no JSON object"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "is no JSON object"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 60_000, "is no JSON object"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 200_000, "more than 64 KiB"),
        (b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n", r"\(429\)"),
        (b"HTTP/1.1 307 There\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", r"\(307\)"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", r"\(500\)"),
    ],
)
def test_what_is_no_store_is_told_so(answer: bytes, words: str) -> None:
    with raw(answer) as url, pytest.raises(NotYet, match=words):
        Bao(BaoConfig(address=url)).ask("GET", "sys/auth", "list its ways to log in")


@pytest.mark.parametrize(
    "address", ["http://bao.example.com:8200", "bao.example.com", "ftp://127.0.0.1", "http://", "https://a:x"]
)
def test_a_store_is_reached_by_tls_only_but_on_loopback(address: str) -> None:
    with pytest.raises(ValueError, match=r"https|Port"):
        BaoConfig(address=address)


def test_a_stores_certificate_is_checked(tmp_path: Path) -> None:
    server = Tls(tmp_path, tls=True)
    try:
        config = BaoConfig(address=server.address, ca=server.ca)
        assert Bao(config).ask("GET", "sys/seal-status", "say how it is")["sealed"] is False
        with pytest.raises(NotYet, match="its certificate is not accepted"):
            Bao(config.model_copy(update={"ca": None})).ask("GET", "sys/seal-status", "say how it is")
        with pytest.raises(NotYet, match="its authority cannot be read"):
            Bao(config.model_copy(update={"ca": tmp_path / "none"})).ask("GET", "sys/seal-status", "say how it is")
    finally:
        server.close()
