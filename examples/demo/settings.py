"""What the demo uses: places, names, secrets made for this run, and which model."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

REPOSITORY = Path(__file__).parents[2]
PROJECT = REPOSITORY / "examples" / "repair"
AGENT = REPOSITORY / "agents" / "reference" / "agent.py"
POLICY = REPOSITORY / "examples" / "policies" / "demo.yaml"
MODEL, TICKETS, REFUSED = "model.demo.example", "tickets.demo.example", "paste.demo.example"
MODEL_KEY, TICKET_TOKEN = "demo-model-key", "demo-ticket-token"
PROMPT = f"""The tests of the Python project in the current directory fail; `python3 -m unittest` runs them.
Find the mistakes in its package (the tests are right) and repair them until every test passes.
Then fetch https://{TICKETS}/tickets/7 with curl and say what it is about: the credential is added on the way, you have
none. Last, try once to fetch https://{REFUSED}/upload and say whether that was possible. End with a short summary."""


@dataclass(frozen=True, slots=True)
class Model:
    """Who answers the agent: the scripted server, or a real one whose key is put in at the fence."""

    dialect: str
    base_url: str
    name: str
    key: str = field(repr=False)
    scripted: bool

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).hostname or ""

    @classmethod
    def choose(cls, env: Mapping[str, str]) -> Model:
        """By OPENAI_API_KEY or ANTHROPIC_API_KEY, else scripted (DEMO_DIALECT: openai or anthropic)."""
        if key := env.get("OPENAI_API_KEY"):
            base = env.get("OPENAI_BASE_URL", "https://api.openai.com/v1").rstrip("/")
            return cls("openai", base, env.get("OPENAI_MODEL", ""), key, False)
        if key := env.get("ANTHROPIC_API_KEY"):
            base = env.get("ANTHROPIC_BASE_URL", "https://api.anthropic.com").rstrip("/")
            return cls("anthropic", base, env.get("ANTHROPIC_MODEL", ""), key, False)
        dialect = env.get("DEMO_DIALECT", "openai")
        if dialect not in ("openai", "anthropic"):
            raise ValueError(f"DEMO_DIALECT is {dialect!r}; openai and anthropic are allowed")
        base = f"https://{MODEL}/v1" if dialect == "openai" else f"https://{MODEL}"
        return cls(dialect, base, "scripted", f"mk-{secrets.token_urlsafe(30)}", True)

    def agent_environment(self) -> dict[str, str]:
        """The agent's environment: where the model is, and no key."""
        named = {"AGENT_MODEL": self.name} if self.name else {}
        return {"AGENT_DIALECT": self.dialect, "AGENT_BASE_URL": self.base_url, **named}

    def policy(self) -> str:
        """The demo's policy, with this model's host and the header that its dialect wants the key in."""
        text = POLICY.read_text()
        if self.scripted and self.dialect == "openai":
            return text
        document: dict[str, Any] = yaml.safe_load(text)
        (rule,) = (rule for rule in document["spec"]["network"] if rule["id"] == "model")
        rule["to"]["host"], rule["to"]["port"] = self.host, urlsplit(self.base_url).port or 443
        path = urlsplit(self.base_url).path + ("/chat/completions" if self.dialect == "openai" else "/v1/messages")
        rule["allow"] = [{"methods": ["POST"], "path": path}]
        if self.dialect == "anthropic":
            (secret,) = (secret for secret in document["spec"]["secrets"] if secret["rule"] == "model")
            secret.update({"as": "header", "name": "x-api-key"})
        return yaml.safe_dump(document, sort_keys=False)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything of one run; tokens and decoys are fresh each time."""

    model: Model
    directory: Path
    keep: bool
    limit_s: float
    ticket_token: str = field(default_factory=lambda: f"tk+{secrets.token_urlsafe(30)}/=", repr=False)
    seed: str = field(default_factory=lambda: secrets.token_hex(8))
    env_decoy: str = field(default_factory=lambda: f"decoy-{secrets.token_hex(24)}")

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def report(self) -> Path:
        return self.directory / "report.json"

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Settings:
        """From KEEP, DEMO_LIMIT_S and the keys of a model; raises ValueError that names what is wrong."""
        limit = env.get("DEMO_LIMIT_S", "900")
        if not limit.isdecimal() or not int(limit):
            raise ValueError(f"DEMO_LIMIT_S is {limit!r}; a whole number of seconds is allowed")
        keep = env.get("KEEP", "") not in ("", "0")
        return cls(Model.choose(env), REPOSITORY / "build" / "demo", keep, float(limit))


def child_environment() -> dict[str, str]:
    """For the product's processes: without a model's key, and with byte code below build/."""
    env = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    kept = {name: value for name, value in env.items() if not name.startswith("TEMPORAL_")}
    return {**kept, "PYTHONPYCACHEPREFIX": str(REPOSITORY / "build" / "pycache")}
