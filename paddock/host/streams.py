"""The host's end of streams: dials the relay, lets in who proves a sandbox's key, and serves output and objects.

Every byte from the relay is hostile. A caller that breaks a rule loses its stream, never another's; a relay that does
loses the connection, and the host dials again. Nothing is kept here: a caller that comes again names its cursor.
"""

import asyncio
import base64
import logging
import os
import random
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from paddock.contracts import streams
from paddock.contracts.errors import ErrorInfo, ErrorKind, PaddockError
from paddock.contracts.hosts import TaskDone
from paddock.contracts.streams import Ack, Chunk, Follow, Get, Has, HostWord, Intake, Proof, Put, Window, cost
from paddock.host.objects import ObjectStore
from paddock.relay.frames import MAX_FRAME, BadFrame, Frame, Kind, closing, message

log = logging.getLogger(__name__)

MAX_STREAMS: Final = 512
STRANGER_BYTES: Final = 16 << 10
PROOF_TIMEOUT_S: Final = 10.0
STEADY_S: Final = 5.0
FIRST_DELAY_S: Final = 0.02
LAST_DELAY_S: Final = 2.0
IDLE_TIMEOUT_S: Final = 600.0
PUT_STALL_S: Final = 60.0


class SandboxLink(Protocol):
    """What streams need to know about the sandboxes of this host."""

    def caller_keys(self, sandbox_id: str) -> tuple[str, ...]:
        """Public keys (base64) that may open this sandbox's streams; those of a sandbox that ended lately too."""

    def follow(self, sandbox_id: str, task: int, cursor: int) -> AsyncGenerator[Chunk | TaskDone, None]:
        """Output from `cursor` in chunks of at most MAX_CONTENT bytes, as it comes, then TaskDone.

        Waits for a task that has not begun; raises PaddockError when it never will or the sandbox is lost.
        """


class _Stream:
    """One caller: messages in, bounded by the window; messages out through the host's connection."""

    def __init__(self, number: int, socket: ClientConnection) -> None:
        self._number, self._socket = number, socket
        self._inbox: deque[str | bytes] = deque()
        self._held = 0
        self._wake = asyncio.Event()
        self.limit = STRANGER_BYTES

    def push(self, received: str | bytes) -> bool:
        """Take a message without waiting; False when the caller sent more than it may."""
        self._held += cost(received.encode() if isinstance(received, str) else received)
        self._inbox.append(received)
        self._wake.set()
        return self._held <= self.limit

    async def receive(self, timeout_s: float) -> str | bytes:
        async with asyncio.timeout(timeout_s):
            while not self._inbox:
                self._wake.clear()
                await self._wake.wait()
        return self.take()

    def take(self) -> str | bytes:
        received = self._inbox.popleft()
        self._held -= cost(received.encode() if isinstance(received, str) else received)
        return received

    def acknowledged(self, window: Window) -> None:
        """Read what the caller acknowledged meanwhile; anything else during an operation ends the stream."""
        while self._inbox:
            window.ack(Ack.model_validate_json(_text(self.take())).ack)

    async def room(self, window: Window) -> None:
        """Wait until one more message may go: a slow reader holds back its own stream only."""
        self.acknowledged(window)
        while not window.open():
            window.ack(Ack.model_validate_json(_text(await self.receive(IDLE_TIMEOUT_S))).ack)

    async def say(self, word: HostWord) -> None:
        await self._socket.send(message(self._number, word.model_dump_json(exclude_defaults=True)).to_bytes())

    async def send(self, content: bytes) -> None:
        await self._socket.send(message(self._number, content).to_bytes())

    async def close(self, reason: str) -> None:
        await self._socket.send(closing(self._number, reason).to_bytes())


def _text(received: str | bytes) -> str:
    if not isinstance(received, str):
        raise ValueError("content where a word was expected")
    return received


class StreamHost:
    """Serves this host's streams through `relay` for as long as `run` runs."""

    def __init__(
        self, *, relay: str, environment: str, host: str, token: str, link: SandboxLink, objects: ObjectStore
    ) -> None:
        self._url = f"{relay.rstrip('/')}/host/{environment}/{host}"
        self._host, self._token = host, token
        self._link, self._objects = link, objects
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.connected = asyncio.Event()

    async def run(self) -> None:
        """Stay connected until cancelled; a relay that dies or refuses is dialled again, ever more slowly up to 2 s."""
        clock = asyncio.get_running_loop().time
        delay = FIRST_DELAY_S
        while True:
            since = clock()
            try:
                async with connect(
                    self._url,
                    additional_headers={"Authorization": f"Bearer {self._token}"},
                    compression=None,
                    max_size=MAX_FRAME,
                    max_queue=64,
                    close_timeout=1,
                    proxy=None,
                ) as socket:
                    self.connected.set()
                    await self._serve(socket)
            except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed, BadFrame) as wrong:
                log.warning("relay: %s; dialling again", wrong)
            finally:
                self.connected.clear()
            delay = FIRST_DELAY_S if clock() - since > STEADY_S else min(delay * 2, LAST_DELAY_S)
            await asyncio.sleep(delay * random.uniform(0.7, 1.3))

    async def _serve(self, socket: ClientConnection) -> None:
        known: dict[int, _Stream] = {}
        try:
            async for received in socket:
                frame = Frame.from_message(received)
                stream = known.get(frame.stream)
                if frame.kind is Kind.OPEN:
                    if stream is not None:
                        raise BadFrame("a stream opened twice")
                    stream = _Stream(frame.stream, socket)
                    if len(known) >= MAX_STREAMS:
                        await stream.close("too many streams to this host")
                        continue
                    known[frame.stream] = stream
                    self._tasks[frame.stream] = task = asyncio.create_task(self._attend(stream))
                    task.add_done_callback(partial(self._left, known, frame.stream))
                elif stream is None:
                    continue
                elif frame.kind is Kind.CLOSE:
                    self._tasks[frame.stream].cancel()
                elif not stream.push(frame.payload.decode() if frame.kind is Kind.TEXT else frame.payload):
                    self._tasks[frame.stream].cancel()
                    await stream.close("more than was acknowledged")
        except UnicodeDecodeError as wrong:
            raise BadFrame("text that is not UTF-8") from wrong
        finally:
            leaving = list(self._tasks.values())
            for task in leaving:
                task.cancel()
            await asyncio.gather(*leaving, return_exceptions=True)

    def _left(self, known: dict[int, _Stream], number: int, _: "asyncio.Task[None]") -> None:
        known.pop(number, None)
        self._tasks.pop(number, None)

    async def _attend(self, stream: _Stream) -> None:
        """One caller from its nonce to its last operation; whatever goes wrong ends this stream alone, in words."""
        sandbox = ""
        try:
            sandbox = await self._admit(stream)
            stream.limit = 2 * streams.WINDOW
            while True:
                await self._operate(stream, sandbox)
        except PaddockError as wrong:
            error = wrong.info
        except ValueError as wrong:  # pydantic's too
            words = wrong.errors()[0]["msg"] if isinstance(wrong, ValidationError) else str(wrong)
            error = ErrorInfo(kind=ErrorKind.NOT_ALLOWED, message=f"the stream's caller broke a rule: {words}")
        except (TimeoutError, ConnectionClosed):
            error = None
        except Exception:
            log.exception("stream failed", extra={"sandbox_id": sandbox})
            error = ErrorInfo(kind=ErrorKind.INTERNAL, message="the host failed to serve this stream")
        try:
            if error is not None:
                await stream.say(HostWord(error=error))
            await stream.close("")
        except ConnectionClosed:
            pass

    async def _admit(self, stream: _Stream) -> str:
        """The sandbox whose key the caller proved to hold; raises PaddockError NOT_ALLOWED, with one answer for all."""
        nonce = os.urandom(streams.NONCE_BYTES)
        await stream.say(HostWord(nonce=base64.b64encode(nonce).decode()))
        proof = Proof.model_validate_json(_text(await stream.receive(PROOF_TIMEOUT_S)))
        words = streams.words_to_sign(proof.sandbox_id, self._host, nonce)
        try:
            if proof.key not in self._link.caller_keys(proof.sandbox_id):
                raise InvalidSignature
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(proof.key, validate=True))
            key.verify(base64.b64decode(proof.signature, validate=True), words)
        except (InvalidSignature, ValueError):
            raise PaddockError(
                ErrorKind.NOT_ALLOWED,
                "this key may not open streams of this sandbox",
                field=proof.sandbox_id,
                remedy="attach first: its host must know the key, and hold the sandbox",
            ) from None
        return proof.sandbox_id

    async def _operate(self, stream: _Stream, sandbox: str) -> None:
        text = _text(await stream.receive(IDLE_TIMEOUT_S))
        if text.startswith('{"ack"'):
            return  # the last word about an operation that is over
        match streams.OPERATION.validate_json(text):
            case Follow() as follow:
                await self._follow(stream, sandbox, follow)
            case Has(digests=digests):
                await stream.say(HostWord(missing=tuple(d for d in digests if not self._objects.has(sandbox, d))))
            case Put() as put:
                await self._put(stream, sandbox, put)
            case Get() as get:
                await self._get(stream, sandbox, get)

    async def _follow(self, stream: _Stream, sandbox: str, follow: Follow) -> None:
        window = Window()
        async with aclosing(self._link.follow(sandbox, follow.task, follow.cursor)) as output:
            async for part in output:
                if isinstance(part, TaskDone):
                    await stream.say(HostWord(end=part))
                    return
                content = part.to_bytes()
                if len(content) > streams.MAX_MESSAGE:
                    raise RuntimeError("an output chunk is larger than a message may be")
                await stream.room(window)
                window.spend(content)
                await stream.send(content)
        raise PaddockError(ErrorKind.SANDBOX_LOST, "the output ended without a result", field=sandbox)

    async def _put(self, stream: _Stream, sandbox: str, put: Put) -> None:
        if not self._objects.has(sandbox, put.digest):
            await stream.say(HostWord(bytes=put.bytes))
            intake = Intake()
            with self._objects.writer(sandbox, put.digest, put.bytes) as writer:
                while writer.written < put.bytes:
                    content = await stream.receive(PUT_STALL_S)
                    if isinstance(content, str) or not content:
                        raise ValueError("a word or nothing where content was expected")
                    writer.write(content)
                    total = intake.take(content)
                    if total is not None:
                        await stream.say(HostWord(ack=total))
                writer.commit()
        await stream.say(HostWord(done=True))

    async def _get(self, stream: _Stream, sandbox: str, get: Get) -> None:
        if not self._objects.has(sandbox, get.digest):
            raise PaddockError(ErrorKind.NOT_FOUND, "the host keeps no such object for this sandbox", field=get.digest)
        window = Window()
        with self._objects.path(sandbox, get.digest).open("rb") as file:
            await stream.say(HostWord(bytes=os.fstat(file.fileno()).st_size))
            while content := file.read(streams.MAX_CONTENT):
                await stream.room(window)
                window.spend(content)
                await stream.send(content)
        await stream.say(HostWord(done=True))
