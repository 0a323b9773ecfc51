"""A model server without a model: both dialects, streaming, TLS; a script decides from what the tools answered.

It shares no code with agents/reference: the dialects are written twice, so that each checks the other.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from types import TracebackType
from typing import Any

Json = dict[str, Any]
MAX_BODY_BYTES = 32 << 20
PIECE = 24  # characters in one streamed piece: names, JSON and UTF-8 are cut anywhere


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool that the model wants used."""

    name: str
    arguments: dict[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says and wants done; no calls: its last word."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """An answer that goes wrong: a status instead of an answer, or a stream that stops in its middle."""

    status: int = 200
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    breaks_off: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One call that the model made earlier, with what the tool answered (None: no answer came back)."""

    call: ToolCall
    answer: str | None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A request in neither dialect: the prompt and every step so far."""

    prompt: str
    steps: tuple[Step, ...] = ()
    tools: tuple[str, ...] = ()


Script = Callable[[Conversation], Reply | Fault]


def in_turn(*replies: Reply | Fault) -> Script:
    """A script that gives these replies one after the other, then a last word."""
    left = list(replies)
    return lambda _: left.pop(0) if left else Reply("That was all.")


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived; credentials exactly as sent."""

    dialect: str
    path: str
    model: str
    authorization: str
    api_key: str
    conversation: Conversation = field(repr=False)


def read_openai(body: Json) -> Conversation:
    """The conversation of a chat completions request."""
    prompt, calls, answers = "", list[tuple[str, ToolCall]](), dict[str, str]()
    for message in body["messages"]:
        if message["role"] == "user" and not prompt:
            prompt = message["content"]
        for call in message.get("tool_calls") or ():
            calls.append((call["id"], ToolCall(call["function"]["name"], json.loads(call["function"]["arguments"]))))
        if message["role"] == "tool":
            answers[message["tool_call_id"]] = message["content"]
    names = tuple(tool["function"]["name"] for tool in body.get("tools", ()))
    return Conversation(prompt, tuple(Step(call, answers.get(key)) for key, call in calls), names)


def read_anthropic(body: Json) -> Conversation:
    """The conversation of a messages request."""
    prompt, calls, answers = "", list[tuple[str, ToolCall]](), dict[str, str]()
    for message in body["messages"]:
        content = message["content"]
        blocks: list[Json] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for block in blocks:
            if block["type"] == "text" and message["role"] == "user" and not prompt:
                prompt = block["text"]
            elif block["type"] == "tool_use":
                calls.append((block["id"], ToolCall(block["name"], block["input"])))
            elif block["type"] == "tool_result":
                inner = block["content"]
                answers[block["tool_use_id"]] = inner if isinstance(inner, str) else "".join(b["text"] for b in inner)
    names = tuple(tool["name"] for tool in body.get("tools", ()))
    return Conversation(prompt, tuple(Step(call, answers.get(key)) for key, call in calls), names)


def pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), PIECE):
        yield text[start : start + PIECE]


def write_openai(reply: Reply, model: str, number: int) -> Iterator[bytes]:
    """The reply as chat completion chunks."""

    def chunk(delta: Json, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        body = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "model": model, "choices": [choice]}
        return f"data: {json.dumps(body)}\n\n".encode()

    yield chunk({"role": "assistant", "content": ""})
    for piece in pieces(reply.text):
        yield chunk({"content": piece})
    for index, call in enumerate(reply.calls):
        head = {"index": index, "id": f"call_{number}_{index}", "type": "function"}
        yield chunk({"tool_calls": [{**head, "function": {"name": call.name, "arguments": ""}}]})
        for piece in pieces(json.dumps(call.arguments)):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, "tool_calls" if reply.calls else "stop")
    yield b"data: [DONE]\n\n"


def write_anthropic(reply: Reply, model: str, number: int) -> Iterator[bytes]:
    """The reply as the events of a streamed message."""

    def event(kind: str, **body: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **body})}\n\n".encode()

    message = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": model, "content": []}
    yield event("message_start", message={**message, "stop_reason": None, "usage": {"input_tokens": 1}})
    yield event("ping")
    blocks: list[tuple[Json, str, str, str]] = []
    if reply.text:
        blocks.append(({"type": "text", "text": ""}, "text_delta", "text", reply.text))
    for index, call in enumerate(reply.calls):
        block = {"type": "tool_use", "id": f"toolu_{number}_{index}", "name": call.name, "input": {}}
        blocks.append((block, "input_json_delta", "partial_json", json.dumps(call.arguments)))
    for index, (block, kind, key, text) in enumerate(blocks):
        yield event("content_block_start", index=index, content_block=block)
        for piece in pieces(text):
            yield event("content_block_delta", index=index, delta={"type": kind, key: piece})
        yield event("content_block_stop", index=index)
    reason = "tool_use" if reply.calls else "end_turn"
    yield event("message_delta", delta={"stop_reason": reason}, usage={"output_tokens": 1})
    yield event("message_stop")


DIALECTS: dict[str, tuple[str, Callable[[Json], Conversation], Callable[[Reply, str, int], Iterator[bytes]]]] = {
    "/v1/chat/completions": ("openai", read_openai, write_openai),
    "/v1/messages": ("anthropic", read_anthropic, write_anthropic),
}


class ModelServer:
    """The server, in threads of its own; `with ModelServer(script) as server` gives its port and what it saw.

    With `key`, a request without exactly this credential in its dialect's own header is answered 401.
    """

    def __init__(
        self,
        script: Script,
        *,
        key: str | None = None,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.script, self.key, self.seen = script, key, list[Seen]()
        self._lock = threading.Lock()
        self._http = _Server((host, port), _handler(self), tls)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> ModelServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)

    def decide(self, seen: Seen) -> tuple[Reply | Fault, int]:
        with self._lock:  # a script may keep state: one request at a time
            self.seen.append(seen)
            return self.script(seen.conversation), len(self.seen)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None):
        super().__init__(address, handler)
        self.tls = tls

    def finish_request(self, request: Any, client_address: Any) -> None:
        connection: socket = request
        connection.settimeout(60)
        if self.tls:  # here, in the connection's own thread: a slow handshake holds nobody else up
            connection = self.tls.wrap_socket(connection, server_side=True)
        super().finish_request(connection, client_address)
        connection.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


def _handler(server: ModelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", "-1"))
            if not 0 <= length <= MAX_BODY_BYTES:
                return self.answer(411, "a Content-Length is wanted")
            body = self.rfile.read(length)
            if self.path not in DIALECTS:
                return self.answer(404, f"no such path; there are {', '.join(DIALECTS)}")
            dialect, read, write = DIALECTS[self.path]
            sent = {"openai": self.headers.get("Authorization", ""), "anthropic": self.headers.get("X-Api-Key", "")}
            wanted = {"openai": f"Bearer {server.key}", "anthropic": server.key}
            if server.key is not None and sent[dialect] != wanted[dialect]:
                return self.answer(401, "the credential is missing or wrong")
            try:
                request = json.loads(body)
                conversation = read(request)
            except (ValueError, LookupError, TypeError) as error:
                return self.answer(400, f"the request can't be understood: {error!r}")
            if request.get("stream") is not True:
                return self.answer(400, "this server only streams")
            model = str(request.get("model", ""))
            seen = Seen(dialect, self.path, model, sent["openai"], sent["anthropic"], conversation)
            reply, number = server.decide(seen)
            if isinstance(reply, Fault) and not reply.breaks_off:
                return self.answer(reply.status, reply.body, dict(reply.headers))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            whole = list(write(reply if isinstance(reply, Reply) else Reply("cut " * 40), model, number))
            for part in whole if isinstance(reply, Reply) else whole[: len(whole) // 2]:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.flush()
            if isinstance(reply, Fault):
                self.close_connection = True
                return None
            self.wfile.write(b"0\r\n\r\n")
            return None

        def answer(self, status: int, words: str, headers: dict[str, str] | None = None) -> None:
            data = json.dumps({"error": {"message": words}}).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet: what arrived is in `seen`."""

    return Handler
