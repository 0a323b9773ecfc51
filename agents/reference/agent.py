"""The reference agent: one loop, the standard library, two dialects (OpenAI chat, Anthropic messages), four tools.

`python3 agent.py PROMPT`, or `-` to read it from standard input. Environment: AGENT_DIALECT openai|anthropic,
AGENT_BASE_URL, AGENT_MODEL, AGENT_API_KEY (left out behind a fence that adds the credential) and the bounds of LIMITS.
Exit: 0 the model finished · 1 out of steps · 2 wrong use · 3 the fence refused the model's host · 4 the model failed.
"""

import contextlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

Json = dict[str, Any]
SYSTEM = (
    "You work alone in a sandbox, in the current directory. Use the tools; nobody sees what you only describe. "
    "A host that the fence refuses stays refused: say so, go on, try no other way. End with a short summary."
)
TOOLS = {
    "bash": ("Run a shell command; answers its exit code and output.", {"command": "the command"}),
    "read": ("Read a text file.", {"path": "path of the file"}),
    "write": ("Write a whole text file, making its folders.", {"path": "its path", "content": "all of its text"}),
    "ask": ("Ask the person in charge, when only a person can decide.", {"question": "the question"}),
}
LIMITS = {"MAX_STEPS": (60, 1000), "OUTPUT_BYTES": (24_000, 1 << 20)}  # AGENT_…: default, most
LIMITS |= {"COMMAND_S": (300, 86_400), "REQUEST_S": (300, 3600), "ASK_S": (60, 86_400)}
MAX_ANSWER_BYTES, STREAM = 16 << 20, {"stream": True}
RETRYABLE = {408, 409, 429, 500, 502, 503, 504, 529}
OUT_OF_STEPS, WRONG_USE, FENCE_REFUSED, MODEL_FAILED = 1, 2, 3, 4


class Stop(Exception):
    """The agent can't go on: the exit code, and whether another try may help, after how long."""

    def __init__(self, code: int, message: str, again: bool = False, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.code, self.again, self.wait_s = code, again, wait_s


class Call(NamedTuple):
    """One use of a tool that the model asks for; `text` is its argument object as JSON."""

    id: str
    name: str
    text: str


Turn = tuple[str, list[Call]]  # what the model said, and wants done


class OpenAI:
    """The chat completions dialect, which most servers of open models speak too."""

    base_url, model, path = "https://api.openai.com/v1", "gpt-5.1", "/chat/completions"

    def headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"} if key else {}

    def request(self, model: str, history: list[Json]) -> Json:
        tools = [{"type": "function", "function": {"parameters": s, **rest}} for s, rest in tool_schemas()]
        return {"model": model, "messages": [{"role": "system", "content": SYSTEM}, *history], "tools": tools} | STREAM

    def read(self, events: Iterator[Json]) -> Turn:
        text, parts, finished = "", dict[int, list[str]](), False
        for choice in (choice for event in events for choice in event.get("choices") or ()):
            delta = choice.get("delta") or {}
            text += say(delta.get("content") or "")
            for piece in delta.get("tool_calls") or ():
                call, function = parts.setdefault(int(piece.get("index", 0)), ["", "", ""]), piece.get("function") or {}
                for slot, more in enumerate((piece.get("id"), function.get("name"), function.get("arguments"))):
                    call[slot] += more or ""
            finished = finished or bool(choice.get("finish_reason"))
        return whole(text, parts, finished)

    def remember(self, turn: Turn) -> Json:
        text, wanted = turn
        calls = [{"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.text}} for c in wanted]
        return {"role": "assistant", "content": text or None, **({"tool_calls": calls} if calls else {})}

    def results(self, results: list[tuple[Call, str]]) -> list[Json]:
        return [{"role": "tool", "tool_call_id": call.id, "content": text} for call, text in results]


class Anthropic:
    """The messages dialect."""

    base_url, model, path = "https://api.anthropic.com", "claude-sonnet-4-5", "/v1/messages"

    def headers(self, key: str) -> dict[str, str]:
        return {"anthropic-version": "2023-06-01", **({"x-api-key": key} if key else {})}

    def request(self, model: str, history: list[Json]) -> Json:
        tools = [{"input_schema": s, **rest} for s, rest in tool_schemas()]
        return {"model": model, "max_tokens": 8192, "system": SYSTEM, "messages": history, "tools": tools} | STREAM

    def read(self, events: Iterator[Json]) -> Turn:
        text, parts, finished = "", dict[int, list[str]](), False
        for event in events:
            kind, index, delta = event.get("type"), int(event.get("index", 0)), event.get("delta") or {}
            if kind == "content_block_start" and (block := event["content_block"]).get("type") == "tool_use":
                parts[index] = [block["id"], block["name"], ""]
            elif delta.get("type") == "text_delta":
                text += say(delta["text"])
            elif delta.get("type") == "input_json_delta":
                parts[index][2] += delta["partial_json"]
            finished = finished or kind == "message_stop"
        return whole(text, parts, finished)

    def remember(self, turn: Turn) -> Json:
        text, wanted = turn
        content: list[Json] = [{"type": "text", "text": text}] if text.strip() else []
        content += [{"type": "tool_use", "id": c.id, "name": c.name, "input": as_object(c.text)} for c in wanted]
        return {"role": "assistant", "content": content or "(nothing)"}

    def results(self, results: list[tuple[Call, str]]) -> list[Json]:
        blocks = [{"type": "tool_result", "tool_use_id": call.id, "content": text} for call, text in results]
        return [{"role": "user", "content": blocks}]


DIALECTS: dict[str, OpenAI | Anthropic] = {"openai": OpenAI(), "anthropic": Anthropic()}


def tool_schemas() -> Iterator[tuple[Json, Json]]:
    for name, (description, takes) in TOOLS.items():
        properties = {key: {"type": "string", "description": text} for key, text in takes.items()}
        schema = {"type": "object", "properties": properties, "required": [*takes], "additionalProperties": False}
        yield schema, {"name": name, "description": description}


def whole(text: str, parts: dict[int, list[str]], finished: bool) -> Turn:
    if not finished:
        raise Stop(MODEL_FAILED, "the answer broke off before its end", again=True)
    return text, [Call(*parts[index]) for index in sorted(parts)]


def as_object(text: str) -> Json:
    """A JSON object, empty when the text is none: what a model wrote is never trusted to be one."""
    with contextlib.suppress(ValueError):
        if isinstance(value := json.loads(text), dict):
            return value
    return {}


def excerpt(file: BinaryIO, limit: int) -> str:
    """The text of a file, its middle cut out (and that said) when it is longer than `limit` bytes."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    text = file.read(limit if size <= limit else limit // 2)
    if size > limit:
        file.seek(-(limit // 2), os.SEEK_END)
        text += b"\n[... %d bytes cut ...]\n" % (size - limit // 2 * 2) + file.read(limit // 2)
    return text.decode("utf-8", "replace")


class Agent:
    """The loop and its tools; every step, wait and size is bounded by the environment."""

    def __init__(self, env: dict[str, str]) -> None:
        self.history, self.limits = list[Json](), dict[str, int]()
        name = env.get("AGENT_DIALECT", "openai")
        if name not in DIALECTS:
            raise Stop(WRONG_USE, f"AGENT_DIALECT is {name!r}; allowed: {', '.join(DIALECTS)}")
        self.dialect = DIALECTS[name]
        self.base_url = (env.get("AGENT_BASE_URL") or self.dialect.base_url).rstrip("/")
        if not self.base_url.startswith(("https://", "http://")):
            raise Stop(WRONG_USE, f"AGENT_BASE_URL is {self.base_url!r}; it must begin with https:// or http://")
        self.model, self.key = env.get("AGENT_MODEL") or self.dialect.model, env.get("AGENT_API_KEY", "")
        for limit, (default, most) in LIMITS.items():
            if not (text := env.get(f"AGENT_{limit}", str(default))).isdecimal() or not 1 <= int(text) <= most:
                raise Stop(WRONG_USE, f"AGENT_{limit} is {text!r}; a whole number from 1 to {most} is allowed")
            self.limits[limit] = int(text)

    def run(self, prompt: str) -> int:
        self.history.append({"role": "user", "content": prompt})
        for _ in range(self.limits["MAX_STEPS"]):
            turn = self.turn()
            self.history.append(self.dialect.remember(turn))
            say("\n")
            if not turn[1]:
                return 0
            self.history += self.dialect.results([(call, self.use(call)) for call in turn[1]])
        raise Stop(OUT_OF_STEPS, f"no last word after {self.limits['MAX_STEPS']} steps (AGENT_MAX_STEPS)")

    def turn(self) -> Turn:
        """The next turn; nothing has run before it is whole, so a broken one is asked for again."""
        for pause_s in (1, 2, 4, None):
            try:
                return self.complete()
            except Stop as stop:
                if not stop.again or pause_s is None:
                    raise
                say(f"\n[agent] {stop}; trying again\n")
                time.sleep(max(stop.wait_s, pause_s))
        raise AssertionError("the last try returns or raises")

    def complete(self) -> Turn:
        body = json.dumps(self.dialect.request(self.model, self.history)).encode()
        headers = {"Content-Type": "application/json", **self.dialect.headers(self.key)}
        request = urllib.request.Request(self.base_url + self.dialect.path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=self.limits["REQUEST_S"]) as response:
                return self.dialect.read(sse(response))
        except urllib.error.HTTPError as error:
            code, words = error.code, error.read(2000).decode("utf-8", "replace").strip()
            if code == 403:
                raise Stop(FENCE_REFUSED, f"{request.host} is refused (403): {words}") from None
            wait_s = min(int("0" + "".join(filter(str.isdecimal, error.headers.get("Retry-After", "")))), 60)
            raise Stop(MODEL_FAILED, f"{request.host} answered {code}: {words}", code in RETRYABLE, wait_s) from None
        except (OSError, http.client.HTTPException, LookupError, TypeError, AttributeError, ValueError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, socket.gaierror) and reason.errno != socket.EAI_AGAIN:
                raise Stop(FENCE_REFUSED, f"{request.host} has no address: no rule of the policy allows it") from None
            raise Stop(MODEL_FAILED, f"no whole answer from {request.host}: {reason!r}", again=True) from None

    def use(self, call: Call) -> str:
        """Answer of one tool; what can't be done is said in words, for the model to read and go on."""
        wanted, given = TOOLS.get(call.name, ("", None))[1], as_object(call.text)
        if wanted is None:
            return f"error: there is no tool {call.name!r}; there are {', '.join(TOOLS)}"
        if set(given) != set(wanted) or not all(isinstance(value, str) for value in given.values()):
            return f"error: {call.name} takes a JSON object of exactly these strings: {', '.join(wanted)}"
        say(f"[{call.name}] {given[next(iter(wanted))][:200]}\n")
        try:
            return str(getattr(self, call.name)(**given))
        except (OSError, ValueError) as error:
            return f"error: {error}"

    def bash(self, command: str) -> str:
        """Exit code and output of one command; its whole process group ends with it."""
        with tempfile.TemporaryFile() as output:  # a file: a daemon that the command leaves can't hold it open on us
            pipes: Json = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
            child = subprocess.Popen(["/bin/sh", "-c", command], start_new_session=True, **pipes)
            try:
                how = f"exit {child.wait(self.limits['COMMAND_S'])}"
            except subprocess.TimeoutExpired:
                how = f"killed after {self.limits['COMMAND_S']} s"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return f"{how}\n{excerpt(output, self.limits['OUTPUT_BYTES'])}"

    def read(self, path: str) -> str:
        with Path(path).open("rb") as file:
            return excerpt(file, self.limits["OUTPUT_BYTES"])

    def write(self, path: str, content: str) -> str:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return f"wrote {Path(path).write_bytes(content.encode())} bytes"

    def ask(self, question: str) -> str:
        """A person's line from standard input; words that nobody answered when none comes in time."""
        ready = select.select([sys.stdin], [], [], self.limits["ASK_S"])[0]
        answer = sys.stdin.readline().strip() if ready else ""
        return answer or "Nobody answered. Decide yourself, and choose what can be undone."


def say(text: str) -> str:
    print(text, end="", flush=True)
    return text


def sse(response: Any) -> Iterator[Json]:
    """Server-sent events of an answer as JSON objects, at most 16 MiB of them."""
    left = MAX_ANSWER_BYTES
    while line := response.readline(left + 1):
        left -= len(line)
        if left < 0:
            raise Stop(MODEL_FAILED, f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        if not line.startswith(b"data:") or (data := line[5:].strip()) == b"[DONE]":
            continue
        event = json.loads(data)
        if event.get("type") == "error" or event.get("error"):
            raise Stop(MODEL_FAILED, f"the model says: {json.dumps(event.get('error', event))[:500]}", again=True)
        yield event


def main(words: list[str]) -> int:
    try:
        if len(words) != 1 or not (prompt := sys.stdin.read() if words[0] == "-" else words[0]).strip():
            raise Stop(WRONG_USE, "one argument is wanted: the prompt, or - to read it from standard input")
        return Agent(dict(os.environ)).run(prompt)
    except Stop as stop:
        say("\n")
        print(f"agent: {stop}", file=sys.stderr)
        return stop.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
