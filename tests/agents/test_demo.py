"""Parts of the demo that need no sandbox: its policy for every model, its servers, its settings."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from examples.demo.servers import servers
from examples.demo.settings import MODEL, PROMPT, REFUSED, TICKETS, Model, Settings, child_environment
from paddock.egress.config import Connection
from paddock.policy.compile import compile_policy
from paddock.policy.decide import decide
from paddock.policy.decision import Question
from paddock.policy.document import parse
from tests.servers.repairing import URL

CASES = {
    "scripted openai": {},
    "scripted anthropic": {"DEMO_DIALECT": "anthropic"},
    "openai": {"OPENAI_API_KEY": "sk-real"},
    "anthropic": {"ANTHROPIC_API_KEY": "sk-ant-real"},
    "openai elsewhere": {"OPENAI_API_KEY": "sk-real", "OPENAI_BASE_URL": "https://models.corp.example:8443/api/v1/"},
}


@pytest.fixture(params=CASES)
def model(request: pytest.FixtureRequest) -> Model:
    return Model.choose(CASES[str(request.param)])


def test_the_policy_lets_the_agent_reach_its_model_and_its_ticket_and_nothing_else(model: Model) -> None:
    compiled = compile_policy(parse(model.policy(), "demo.yaml"))
    path = "/v1/messages" if model.dialect == "anthropic" else "/chat/completions"
    port = 8443 if ":8443" in model.base_url else 443
    prefix = model.base_url.partition(model.host)[2].removeprefix(":8443")

    def asked(host: str, method: str, path: str, port: int = 443) -> tuple[bool, list[tuple[str, str]]]:
        decision = decide(compiled, Question(host, port, "http", method, path))
        return decision.allowed, [(use.ref, use.header) for use in decision.secrets]

    header = "x-api-key" if model.dialect == "anthropic" else "authorization"
    assert asked(model.host, "POST", prefix + path, port) == (True, [("demo-model-key", header)])
    assert asked(TICKETS, "GET", "/tickets/7") == (True, [("demo-ticket-token", "authorization")])
    for refused in (
        (REFUSED, "GET", "/upload"),
        (TICKETS, "POST", "/tickets/7"),
        (TICKETS, "GET", "/admin"),
        (model.host, "GET", "/v1/models"),
    ):
        assert not asked(*refused)[0], refused


def test_a_key_never_reaches_the_agent_or_shows_in_what_is_printed(model: Model) -> None:
    assert model.key not in repr(model)
    assert model.key not in str(model.agent_environment())
    assert model.key not in model.policy()


def test_a_real_key_stays_out_of_the_products_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-real")
    monkeypatch.setenv("TEMPORAL_ADDRESS", "elsewhere:7233")
    assert not {"OPENAI_API_KEY", "TEMPORAL_ADDRESS"} & child_environment().keys()


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(ValueError, match="DEMO_LIMIT_S"):
        Settings.read({"DEMO_LIMIT_S": "soon"})
    with pytest.raises(ValueError, match="DEMO_DIALECT"):
        Settings.read({"DEMO_DIALECT": "latin"})


def test_the_prompt_names_the_two_addresses_that_the_scripted_model_fetches() -> None:
    assert URL.findall(PROMPT) == [f"https://{TICKETS}/tickets/7", f"https://{REFUSED}/upload"]


async def test_the_ticket_server_answers_the_exact_credential_only(tmp_path: Path) -> None:
    settings = Settings(Model.choose({}), tmp_path, False, 60)
    async with servers(settings, tmp_path / "servers") as local:
        ca = {connection["name"]: connection for connection in local.connections}
        assert set(ca) == {MODEL, TICKETS, REFUSED}
        for connection in local.connections:
            Connection.model_validate(connection)

        async def get(token: str) -> bytes:
            context = ssl.create_default_context(cafile=ca[TICKETS]["ca"])
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", local.tickets.port, ssl=context, server_hostname=TICKETS
            )
            head = f"GET /tickets/7 HTTP/1.1\r\nHost: {TICKETS}\r\nAuthorization: Bearer {token}\r\n\r\n"
            writer.write(head.encode())
            try:
                return await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n" if token[-1:] == "=" else b"}"), 10)
            finally:
                writer.close()

        assert (await get("wrong")).startswith(b"HTTP/1.1 401")
        right = await get(settings.ticket_token)
        assert right.startswith(b"HTTP/1.1 200")
        assert settings.ticket_token.encode() in right
        assert local.tokens_received() == ["wrong", settings.ticket_token]
        assert local.refused.connections == 0
