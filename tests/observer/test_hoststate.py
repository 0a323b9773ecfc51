"""What a host may keep of a sandbox is found in its own files, each kind by a planted one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.observer.hoststate import kept, recorded_accessors, tokens
from tests.observer.processes import processes
from tests.observer.services import Descriptors, working_in


@pytest.fixture
def state(tmp_path: Path) -> Path:
    for name in ("worker", "broker", "held", "run", "output", "audit/sealed/sb-old", "audit/checkpoints"):
        (tmp_path / "host" / name).mkdir(parents=True)
    (tmp_path / "host" / "output" / "sb-old").mkdir()
    (tmp_path / "host" / "audit" / "sealed" / "sb-old" / "checkpoint").touch()
    slots(tmp_path, {})
    return tmp_path


def slots(state: Path, held: dict[str, object]) -> None:
    (state / "host" / "worker" / "slots.json").write_text(json.dumps({"held": held, "past": {"sb-old": {}}}))


def slot(*, confirmed: bool, left_s: float) -> dict[str, object]:
    return {"workflow_id": "w", "confirmed": confirmed, "expires_at": time.time() + left_s}


def test_a_host_at_rest_keeps_nothing(state: Path) -> None:
    assert kept(state) == []
    assert kept(state / "nowhere") == []


PLANTS: dict[str, Callable[[Path], object]] = {
    "slot": lambda state: slots(state, {"sb-1": slot(confirmed=True, left_s=30)}),
    "record": lambda state: (state / "host/held/sb-1.json").touch(),
    "run directory": lambda state: (state / "host/run/sb-1").mkdir(),
    "lease": lambda state: (state / "host/broker/accessors.json").write_text('{"accessors": {"sb-1": ["x"]}}'),
    "chain": lambda state: (state / "host/output/sb-1").mkdir(),
}


@pytest.mark.parametrize("kind", sorted(PLANTS))
def test_each_thing_that_is_kept_is_found(kind: str, state: Path) -> None:
    PLANTS[kind](state)
    assert [(trace.kind, trace.id) for trace in kept(state)] == [(kind, "sb-1")]
    assert [trace.kind for trace in kept(state, frozenset({"sb-1"}))] == [kind]
    assert kept(state, frozenset({"sb-2"})) == []


def test_half_a_sealed_chain_and_an_open_ones_checkpoint_are_found(state: Path) -> None:
    (state / "host/audit/sealed/.sb-1.new").mkdir()
    (state / "host/audit/checkpoints/sb-2").touch()
    assert [trace.id for trace in kept(state)] == ["sb-1", "sb-2"]


def test_a_reservation_is_a_slot_only_beyond_its_own_end(state: Path) -> None:
    slots(state, {"sb-1": slot(confirmed=False, left_s=30)})
    assert kept(state) == []
    slots(state, {"sb-1": slot(confirmed=False, left_s=-1)})
    assert [trace.id for trace in kept(state)] == ["sb-1"]
    slots(state, {"sb-1": slot(confirmed=False, left_s=3600)})
    assert [trace.id for trace in kept(state)] == ["sb-1"]


def test_accessors_that_the_broker_wrote_down_are_known(state: Path) -> None:
    assert recorded_accessors(state) == set()
    (state / "host/broker/accessors.json").write_text('{"accessors": {"sb-1": ["x", "y"]}}')
    assert recorded_accessors(state) == {"x", "y"}


@contextmanager
def store(answers: dict[str, tuple[int, object]]) -> Iterator[str]:
    """A store that lists accessors and describes them, as OpenBao's HTTP interface does."""

    class Store(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            key = json.loads(body)["accessor"] if body else "list"
            status, data = answers[key] if self.headers["X-Vault-Token"] == "root" else (403, None)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps({"data": data}).encode())

        do_LIST = do_POST = answer

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Store)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_token_that_a_store_still_takes_is_found_by_its_sandbox() -> None:
    answers: dict[str, tuple[int, object]] = {
        "list": (200, {"keys": ["a", "b", "c"]}),
        "a": (200, {"display_name": "jwt-sb-1"}),
        "b": (200, {"display_name": "root"}),
        "c": (403, None),
    }
    with store(answers) as address:
        assert [(trace.kind, trace.id) for trace in tokens(address, "root")] == [("lease", "sb-1")]
    with store({"list": (404, None)}) as address:
        assert tokens(address, "root") == []


def test_a_process_that_works_below_a_directory_is_found_also_when_that_is_deleted(tmp_path: Path) -> None:
    place = tmp_path / "run" / "sb-1"
    place.mkdir(parents=True)
    with subprocess.Popen(["sleep", "600"], cwd=place) as child:
        try:
            assert [process.pid for process in working_in(tmp_path / "run")] == [child.pid]
            place.rmdir()
            assert [process.pid for process in working_in(tmp_path / "run")] == [child.pid]
            assert working_in(tmp_path / "ru") == []
        finally:
            child.kill()
    assert working_in(tmp_path / "run") == []


def test_descriptors_that_add_up_are_seen() -> None:
    script = "import os, sys\nfor line in sys.stdin:\n    os.open('/dev/null', 0); print(flush=True)"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], text=True, **pipes) as child:  # type: ignore[call-overload]
        seen, late, found = Descriptors(started_s=0), Descriptors(), list[list[str]]()
        for _ in range(12):
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == "\n"
            found.append(seen.grown([processes()[child.pid]]))
            assert late.grown([processes()[child.pid]]) == []
        child.stdin.close()
    assert found[0] == []
    assert len(found[-1]) == 1
    assert os.path.basename(sys.executable)[:6] in found[-1][0]
