"""Agent, scripted model and the example project together: the repair happens only when the tools really ran."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.servers.model import Conversation, ModelServer, Reply, Script, ToolCall
from tests.servers.repairing import cure, repair

ROOT = Path(__file__).parents[2]
AGENT = ROOT / "agents" / "reference" / "agent.py"
SUITE = ROOT / "examples" / "repair"
ENV = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "NO_PROXY": "127.0.0.1"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SUITE, tmp_path / "repair", ignore=shutil.ignore_patterns("__pycache__")))


def suite_passes(project: Path) -> bool:
    """The suite's verdict, with its tests taken afresh from examples/."""
    shutil.rmtree(project / "tests")
    shutil.copytree(SUITE / "tests", project / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "unittest"]
    done = subprocess.run(command, cwd=project, env=ENV, capture_output=True, text=True, timeout=60)
    assert "Ran 10 tests" in done.stderr
    return done.returncode == 0


def work(script: Script, project: Path, dialect: str, prompt: str = "Repair this.") -> tuple[int, str]:
    with ModelServer(script) as server:
        base = f"http://{server.address}" + ("/v1" if dialect == "openai" else "")
        env = ENV | {"AGENT_DIALECT": dialect, "AGENT_BASE_URL": base}
        command = [sys.executable, str(AGENT), prompt]
        done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_the_suite_fails_before_and_passes_after(dialect: str, project: Path) -> None:
    assert not suite_passes(project)
    code, output = work(repair, project, dialect)
    assert code == 0, output
    assert suite_passes(project)


def test_the_three_mistakes_are_in_three_files_and_each_fails_the_suite_alone(project: Path) -> None:
    broken = [path for path in sorted(project.glob("ledger/*.py")) if cure(path.read_text())[1]]
    assert [path.name for path in broken] == ["amounts.py", "book.py", "statement.py"]
    texts = {path: path.read_text() for path in broken}
    for left in broken:
        for path, text in texts.items():
            path.write_text(text if path == left else cure(text)[0])
        assert not suite_passes(project), f"the suite does not see the mistake in {left.name}"


def test_the_model_repairs_nothing_when_its_reads_come_back_empty(project: Path) -> None:
    def blinded(conversation: Conversation) -> Reply:
        steps = tuple(replace(s, answer="") if s.call.name == "read" else s for s in conversation.steps)
        return repair(replace(conversation, steps=steps))

    _, output = work(blinded, project, "openai")
    assert "can't repair" in output
    assert not suite_passes(project)


def test_the_model_does_not_claim_success_when_the_tests_did_not_run(project: Path) -> None:
    shutil.rmtree(project / "tests")
    _, output = work(repair, project, "openai")
    assert "Done." not in output


def test_the_model_goes_by_what_is_in_the_files_and_not_by_what_it_expects(project: Path) -> None:
    book = project / "ledger" / "book.py"
    book.write_text(book.read_text().replace("entries", "lines").replace("name", "title"))
    statement = project / "ledger" / "statement.py"
    statement.write_text(statement.read_text().replace("book.entries", "book.lines").replace("book.name", "book.title"))
    test = project / "tests" / "test_book.py"
    test.write_text(test.read_text().replace(".entries", ".lines"))
    code, output = work(repair, project, "anthropic")
    assert code == 0
    assert "Done." in output
    assert "lines: list[Entry] | None = None" in book.read_text()


def test_the_addresses_of_the_prompt_are_fetched_and_their_answers_told(project: Path) -> None:
    class Ticket(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ticket 7 is open")

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Ticket) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/ticket/7"
        code, output = work(repair, project, "openai", f"Repair this, then see {url} and http://refused.invalid/x.")
        server.shutdown()
    assert code == 0
    assert f"{url}: answered 200." in output
    assert "http://refused.invalid/x: refused (curl: (6)" in output


def test_a_repair_is_a_pure_function_of_the_conversation() -> None:
    first = repair(Conversation("Repair."))
    assert first == repair(Conversation("Repair."))
    assert first.calls == (ToolCall("bash", {"command": "python3 -m unittest 2>&1"}),)
