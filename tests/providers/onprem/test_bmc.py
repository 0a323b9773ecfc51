"""One BMC: a single try for each request, TLS that is checked, and words without secrets for every bad answer."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from providers.contract import Blame, ErrorClass, ProviderError
from providers.onprem.bmc import Bmc
from providers.onprem.inventory import Credentials, Machine, Reference, Site
from providers.onprem.life import Look, Power
from tests.providers.onprem.racks import certificate

PASSWORD = "s3cret-of-the-bmc"


class Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


@dataclass
class Fake:
    """A BMC that answers as a test says: for hostile answers, which no emulator gives."""

    answer: Callable[[Request], Response]
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    address: str = ""

    def __call__(self, environ: Any, start: Any) -> Any:
        request = Request(environ)
        self.requests.append((request.method, request.path, request.headers.get("Authorization", "")))
        return self.answer(request)(environ, start)


@contextmanager
def serving(fake: Fake, context: ssl.SSLContext | None = None) -> Iterator[Fake]:
    server = make_server("127.0.0.1", 0, fake, threaded=True, request_handler=Quiet, ssl_context=context)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    fake.address = f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_BMC_USER", "päddock")
    monkeypatch.setenv("TEST_BMC_PASSWORD", PASSWORD)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")


def bmc(address: str, ca: Path | None = None, read_s: float = 5) -> Bmc:
    machine = Machine(
        name="r1u1", bmc=address, system="1", size="s", zone="z", vcpu=1, memory_mib=1024, credentials="c", ca=ca
    )
    account = Credentials(username=Reference(env="TEST_BMC_USER"), password=Reference(env="TEST_BMC_PASSWORD"))
    return Bmc(machine, Site(machines=(machine,), credentials={"c": account}), 2, read_s)


def system(target: str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset", **more: object) -> Response:
    said = {"Id": "1", "PowerState": "Off", "Actions": {"#ComputerSystem.Reset": {"target": target}}}
    return Response(json.dumps(said | more), content_type="application/json")


def refused(deed: Callable[[], object]) -> ProviderError:
    with pytest.raises(ProviderError) as wrong:
        deed()
    said = f"{wrong.value} {wrong.value!r} {wrong.value.code} {wrong.value.__cause__!r}"
    assert PASSWORD not in said
    assert "r1u1" in str(wrong.value)
    return wrong.value


@pytest.mark.usefixtures("secrets")
class TestAnswers:
    @pytest.mark.parametrize(
        ("said", "power"),
        [("On", Power.ON), ("Off", Power.OFF), ("PoweringOn", Power.CHANGING), ("Zzz", Power.CHANGING)],
    )
    def test_power(self, said: str, power: Power) -> None:
        with serving(Fake(lambda _: system(PowerState=said, LastResetTime="2026-01-01T00:00:00Z"))) as fake:
            assert bmc(fake.address).look() == Look(power, "2026-01-01T00:00:00Z")

    def test_no_power_state_is_not_off(self) -> None:
        with serving(Fake(lambda _: system(PowerState=None))) as fake:
            assert bmc(fake.address).look() == Look(Power.CHANGING)

    @pytest.mark.parametrize(
        ("status", "kind", "blame"),
        [
            (400, ErrorClass.INVALID, Blame.PROVIDER),
            (401, ErrorClass.AUTH, Blame.CALLER),
            (403, ErrorClass.AUTH, Blame.CALLER),
            (404, ErrorClass.INVALID, Blame.CALLER),
            (409, ErrorClass.TRANSIENT, Blame.PROVIDER),
            (429, ErrorClass.THROTTLED, Blame.PROVIDER),
            (500, ErrorClass.TRANSIENT, Blame.PROVIDER),
            (501, ErrorClass.INVALID, Blame.PROVIDER),
            (502, ErrorClass.TRANSIENT, Blame.PROVIDER),
            (503, ErrorClass.THROTTLED, Blame.PROVIDER),
        ],
    )
    @pytest.mark.parametrize("body", ["[]", "nothing", '{"error": 7}', json.dumps({"error": {"message": PASSWORD}})])
    def test_a_refusal_has_its_class_whatever_its_body(
        self, status: int, kind: ErrorClass, blame: Blame, body: str
    ) -> None:
        answer = Fake(lambda _: Response(body, status, {"Retry-After": "7"}))
        with serving(answer) as fake:
            wrong = refused(bmc(fake.address).look)
        assert (wrong.kind, wrong.blame, wrong.retry_after_s) == (kind, blame, 7)
        assert len(fake.requests) == 1  # no retry of sushy's

    @pytest.mark.parametrize("wait", ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", "1e9", "", "99999999999"])
    def test_a_strange_retry_after_is_none(self, wait: str) -> None:
        with serving(Fake(lambda _: Response("", 503, {"Retry-After": wait}))) as fake:
            assert refused(bmc(fake.address).look).retry_after_s is None

    @pytest.mark.parametrize("body", ["[]", "7", "nothing", "", '{"Id": 1, "Boot": 7, "Actions": 7}', "[" * 100_000])
    def test_what_is_not_redfish_is_said_so(self, body: str) -> None:
        with serving(Fake(lambda _: Response(body, content_type="application/json"))) as fake:
            assert refused(lambda: bmc(fake.address).turn_on("Pxe")).kind in {ErrorClass.TRANSIENT, ErrorClass.INVALID}

    def test_an_action_at_another_address_is_not_followed(self) -> None:
        with serving(Fake(lambda _: system())) as other:
            for target in (f"{other.address}/steal", other.address.replace("http:", "")):
                with serving(Fake(lambda _, target=target: system(target))) as fake:  # type: ignore[misc]
                    assert refused(bmc(fake.address).turn_off).kind is ErrorClass.TRANSIENT
        assert other.requests == []

    def test_the_account_does_not_follow_a_redirect_to_another_address(self) -> None:
        with serving(Fake(lambda _: system())) as other:
            moved = Fake(lambda _: Response("", 302, {"Location": f"{other.address}/redfish/v1/Systems/1"}))
            with serving(moved) as fake:
                try:
                    bmc(fake.address).look()
                except ProviderError as wrong:
                    assert wrong.kind is ErrorClass.TRANSIENT
        assert {account for _, _, account in other.requests} <= {""}

    def test_off_is_no_error_for_what_is_off(self) -> None:
        with serving(Fake(lambda r: system() if r.method == "GET" else Response("{}", 409))) as fake:
            bmc(fake.address).turn_off()
        on = Fake(lambda r: system(PowerState="On") if r.method == "GET" else Response("{}", 409))
        with serving(on) as fake:
            assert refused(bmc(fake.address).turn_off).kind is ErrorClass.TRANSIENT

    def test_a_boot_target_that_it_does_not_know_is_invalid(self) -> None:
        boot = {"BootSourceOverrideTarget@Redfish.AllowableValues": ["Hdd"]}
        with serving(Fake(lambda _: system(Boot=boot))) as fake:
            wrong = refused(lambda: bmc(fake.address).turn_on("Pxe"))
        assert wrong.kind is ErrorClass.INVALID
        assert {method for method, _, _ in fake.requests} == {"GET"}


@pytest.mark.usefixtures("secrets")
class TestConnections:
    def test_nobody_there(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound, and not listening
            wrong = refused(bmc(f"http://127.0.0.1:{taken.getsockname()[1]}").look)
        assert (wrong.kind, wrong.code) == (ErrorClass.TRANSIENT, "unreachable")

    def test_a_broken_connection_is_tried_once(self) -> None:
        """sushy alone tries three times, two seconds apart, also a POST that may have been done."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            count: list[int] = []

            def drop() -> None:
                listening.settimeout(10)
                while True:
                    taken, _ = listening.accept()
                    with taken:
                        if not taken.recv(65536):
                            return
                        count.append(1)

            thread = threading.Thread(target=drop)
            thread.start()
            wrong = refused(bmc(f"http://127.0.0.1:{listening.getsockname()[1]}").look)
            socket.create_connection(listening.getsockname()).close()  # ends the thread, after all that came before
            thread.join()
        assert wrong.kind is ErrorClass.TRANSIENT
        assert count == [1]

    def test_one_that_accepts_and_says_nothing_is_given_up(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            wrong = refused(bmc(f"http://127.0.0.1:{silent.getsockname()[1]}", read_s=0.2).look)
        assert wrong.code == "unreachable"

    @pytest.mark.parametrize(("pause", "length"), [(0.02, 10**9), (0, 10**8)], ids=["too slow", "too long"])
    def test_an_answer_without_an_end_is_given_up(self, pause: float, length: int) -> None:
        stop = threading.Event()

        def answer() -> Iterator[bytes]:
            yield b'{"Id": "'
            while not stop.wait(pause):
                yield b"x" if pause else b"x" * 65536

        with serving(Fake(lambda _: Response(answer(), headers={"Content-Length": str(length)}))) as fake:
            wrong = refused(bmc(fake.address, read_s=1).look)
            stop.set()
        assert "too long or too slow" in str(wrong)
        assert wrong.kind is ErrorClass.TRANSIENT

    def test_an_answer_that_breaks_off_is_transient(self) -> None:
        with serving(Fake(lambda _: Response(iter([b'{"Id"']), headers={"Content-Length": "99"}))) as fake:
            assert refused(bmc(fake.address).look).kind is ErrorClass.TRANSIENT

    def test_tls_is_checked_against_the_ca_of_the_inventory(self, tmp_path: Path) -> None:
        ours, theirs = certificate(tmp_path, "ours"), certificate(tmp_path, "theirs")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(ours)
        with serving(Fake(lambda _: system()), context) as fake:
            assert bmc(fake.address, ca=ours).look() == Look(Power.OFF)
            for ca in (theirs, None):
                wrong = refused(bmc(fake.address, ca=ca).look)
                assert (wrong.kind, wrong.code, wrong.blame) == (ErrorClass.AUTH, "tls", Blame.CALLER)
        assert len(fake.requests) == 1  # the account went to nobody who was not trusted

    def test_a_missing_ca_is_named(self, tmp_path: Path) -> None:
        wrong = refused(lambda: bmc("https://127.0.0.1:9", ca=tmp_path / "none.pem"))
        assert f"there is no {tmp_path}/none.pem" in str(wrong)
