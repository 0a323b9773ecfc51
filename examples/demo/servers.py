"""The demo's own servers: a scripted model, tickets that want a credential, and a host that must never be reached."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from examples.demo.settings import MODEL, REFUSED, TICKETS, Settings
from tests.servers.certs import TestCa
from tests.servers.model import Conversation, ModelServer, Reply
from tests.servers.repairing import repair
from tests.servers.upstream import Received, Upstream, chunked, full


class Moment:
    """When everything that could leak has happened and the guest still lives: the model waits here for the observer."""

    def __init__(self) -> None:
        self.reached, self._over = asyncio.Event(), threading.Event()
        self._loop = asyncio.get_running_loop()

    def reach(self) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self.reached.set)

    def wait_for_observer(self, at_most_s: float = 180.0) -> None:
        """From a thread that is not the loop's."""
        self.reach()
        self._over.wait(at_most_s)

    def over(self) -> None:
        """The observer has looked, or nobody will."""
        self._over.set()


@dataclass(frozen=True, slots=True)
class Servers:
    """What runs, and the operator's connections to it."""

    model: ModelServer
    tickets: Upstream
    refused: Upstream
    moment: Moment
    connections: tuple[dict[str, Any], ...]

    def tokens_received(self) -> list[str]:
        """The credentials exactly as the ticket server got them."""
        return [request.secret for request in self.tickets.requests]


@contextlib.asynccontextmanager
async def servers(settings: Settings, directory: Path) -> AsyncIterator[Servers]:
    """All of them for the length of the block, on loopback, with certificates of an authority of their own."""
    directory.mkdir(parents=True, exist_ok=True)
    authority, moment = TestCa(directory), Moment()

    def script(conversation: Conversation) -> Reply:
        reply = repair(conversation)
        if not reply.calls:
            moment.wait_for_observer()
        return reply

    def ticket(received: Received) -> list[bytes]:
        if received.secret != settings.ticket_token:
            return full(b'{"error": "no credential, or a wrong one"}', status="401 Unauthorized")
        if not settings.model.scripted:
            moment.reach()  # a real model goes on by itself: the observer stops the guest while it looks
        return _ticket(settings.ticket_token)

    model = ModelServer(script, key=settings.model.key, tls=authority.server_context(MODEL))
    tickets = Upstream(authority.server_context(TICKETS), ticket)
    refused = Upstream(authority.server_context(REFUSED))
    async with tickets, refused:
        with model:
            known = ((MODEL, model.address), (TICKETS, tickets.address), (REFUSED, refused.address))
            connections = tuple(
                {"name": name, "port": 443, "address": address, "ca": str(authority.path)} for name, address in known
            )
            try:
                yield Servers(model, tickets, refused, moment, connections)
            finally:
                moment.over()


def _ticket(token: str) -> list[bytes]:
    """A ticket whose answer gives the credential back in every usual form, cut into chunks in its middle."""
    raw = token.encode()
    body = json.dumps(
        {
            "ticket": 7,
            "title": "The ledger's balances are wrong",
            "your_token": token,
            "your_token_base64": base64.b64encode(raw).decode(),
            "your_token_percent": quote(token, safe=""),
        },
        indent=1,
    ).encode()
    parts = [body[start : start + 7] for start in range(0, len(body), 7)]
    return chunked(parts, "Content-Type: application/json", f"X-Your-Token: {token}")
