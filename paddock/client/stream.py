"""A caller's end of streams: output from a cursor, and objects in and out, over the relay to one host.

A connection that breaks is dialled again and goes on where it stopped, for `patience_s` without a byte. Nothing that
the host or the relay says is trusted beyond its shape; content is checked against its digest.
"""

import asyncio
import base64
import errno
import hashlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import IO, Any, Final, Self

from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from paddock.client.errors import ClientError, Unreachable, from_info
from paddock.client.keys import CallerKey
from paddock.contracts import streams
from paddock.contracts.errors import ErrorInfo, ErrorKind
from paddock.contracts.hosts import TaskDone
from paddock.contracts.streams import Ack, Chunk, Follow, Get, Has, HostWord, Intake, Proof, Put, Window

PATIENCE_S: Final = 60.0
QUIET_S: Final = 2.0
ANSWER_S: Final = 60.0
_BREAKS: Final = (OSError, TimeoutError, InvalidHandshake, ConnectionClosed)
_LOOPBACK: Final = ("ws://127.", "ws://localhost", "ws://[::1]")

Progress = Callable[[int, int], None]


class _Talk:
    """One authenticated connection."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def say(self, word: Follow | Has | Put | Get | Ack | Proof) -> None:
        await self.send(word.model_dump_json())

    async def send(self, message: str | bytes) -> None:
        """Raises what the host's last word says, when it closed in the middle of something."""
        try:
            await self._socket.send(message)
        except ConnectionClosed:
            while True:
                await self.hear()  # what came before the end, and then ConnectionClosed again

    async def hear(self) -> HostWord | bytes:
        """The host's next word, or content; raises the typed error that a host's last word carries."""
        received = await self._socket.recv()
        if isinstance(received, bytes):
            return received
        word = HostWord.model_validate_json(received)
        if word.error is not None:
            raise from_info(word.error)
        return word

    def cut(self) -> None:
        """End it without a goodbye; whoever hears or sends gets ConnectionClosed."""
        self._socket.transport.abort()

    async def word(self) -> HostWord:
        heard = await self.hear()
        if isinstance(heard, bytes):
            raise ValueError("content where a word was expected")
        return heard


class _Watch:
    """Cuts a connection that has been silent for QUIET_S after the sandbox ended; a pausing reader is not silence."""

    def __init__(self, talk: _Talk, ended: "asyncio.Future[Any] | None") -> None:
        self._talk: _Talk | None = talk
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._since: float | None = None
        self._over: float | None = None

    async def hear(self) -> HostWord | bytes:
        self._since = self._loop.time()
        try:
            assert self._talk is not None
            return await self._talk.hear()
        finally:
            self._since = None

    def __enter__(self) -> Self:
        if self._ended is not None:
            self._ended.add_done_callback(self._check)
        return self

    def __exit__(self, *_: object) -> None:
        self._talk = None
        if self._ended is not None:
            self._ended.remove_done_callback(self._check)
        if self._timer is not None:
            self._timer.cancel()

    def _check(self, _: object = None) -> None:
        if self._talk is None:
            return
        self._over = self._over or self._loop.time()
        if self._since is not None and self._loop.time() - max(self._since, self._over) >= QUIET_S:
            self._talk.cut()
        else:
            self._timer = self._loop.call_later(QUIET_S / 4, self._check)


class Streams:
    """Streams of one sandbox: `relay`, `environment` and `host` say where, `key` lets in."""

    def __init__(
        self,
        *,
        relay: str,
        environment: str,
        host: str,
        sandbox_id: str,
        key: CallerKey,
        patience_s: float = PATIENCE_S,
    ) -> None:
        base = relay if "://" in relay else f"ws://{relay}"
        self._url = f"{base.rstrip('/')}/stream/{environment}/{host}"
        self._host, self._sandbox, self._key = host, sandbox_id, key
        self._patience = patience_s

    @asynccontextmanager
    async def _dial(self) -> AsyncIterator[_Talk]:
        async with connect(
            self._url,
            compression=None,
            max_size=streams.MAX_MESSAGE,
            max_queue=streams.WINDOW // 64,  # the window bounds it; a full queue would stop pings as well
            close_timeout=0.5,
            proxy=None if self._url.startswith(_LOOPBACK) else True,
        ) as socket:
            talk = _Talk(socket)
            async with asyncio.timeout(ANSWER_S):
                nonce = base64.b64decode((await talk.word()).nonce, validate=True)
            if len(nonce) != streams.NONCE_BYTES:
                raise ValueError("not a nonce")
            await talk.say(self._key.prove(self._sandbox, self._host, nonce))
            yield talk

    def _unreachable(self, wrong: BaseException) -> Unreachable:
        return Unreachable(
            ErrorInfo(
                kind=ErrorKind.UNREACHABLE,
                message=f"the stream to host {self._host} is broken: {wrong}",
                field=self._url,
                remedy="is the relay reachable from here, and the host's worker running?",
            )
        )

    @staticmethod
    def _nonsense(wrong: ValueError) -> Unreachable:
        words = wrong.errors()[0]["msg"] if isinstance(wrong, ValidationError) else str(wrong)
        return Unreachable(ErrorInfo(kind=ErrorKind.INTERNAL, message=f"the host said something strange: {words}"))

    async def follow(
        self, task: int, cursor: int = 0, ended: "asyncio.Future[Any] | None" = None
    ) -> AsyncGenerator[Chunk | TaskDone, None]:
        """Output of a task from `cursor`, live, then how it ended; a break in between costs and repeats nothing.

        Back-pressure reaches the task's file, not the task. Once `ended` is done (the sandbox is gone), it takes only
        QUIET_S of silence to give up. Raises Unreachable after `patience_s` without a connection.
        """
        loop = asyncio.get_running_loop()
        last, delay = loop.time(), 0.02
        while True:
            try:
                async with self._dial() as talk:
                    await talk.say(Follow(task=task, cursor=cursor))
                    intake = Intake()
                    with _Watch(talk, ended) as watch:
                        while True:
                            heard = await watch.hear()
                            last, delay = loop.time(), 0.02
                            if isinstance(heard, HostWord):
                                if heard.end is not None:
                                    yield heard.end
                                    return
                                continue
                            chunk = Chunk.from_bytes(heard)
                            yield chunk
                            cursor = chunk.cursor
                            total = intake.take(heard)
                            if total is not None:
                                await talk.say(Ack(ack=total))
            except InvalidURI as wrong:
                raise self._unreachable(wrong) from wrong
            except _BREAKS as wrong:
                gone = ended is not None and ended.done()
                if loop.time() - last > (QUIET_S if gone else self._patience):
                    raise self._unreachable(wrong) from wrong
            except ValueError as wrong:
                raise self._nonsense(wrong) from wrong
            await asyncio.sleep(delay * random.uniform(0.7, 1.3))
            delay = min(delay * 2, 1.0)

    async def _persist(self, attempt: Callable[[_Talk], Any]) -> Any:
        """Do a whole operation anew after a break; each of them may be repeated."""
        loop = asyncio.get_running_loop()
        deadline, delay = loop.time() + self._patience, 0.02
        while True:
            try:
                async with self._dial() as talk:
                    return await attempt(talk)
            except InvalidURI as wrong:
                raise self._unreachable(wrong) from wrong
            except _BREAKS as wrong:
                if loop.time() > deadline:
                    raise self._unreachable(wrong) from wrong
            except ValueError as wrong:
                raise self._nonsense(wrong) from wrong
            await asyncio.sleep(delay * random.uniform(0.7, 1.3))
            delay = min(delay * 2, 1.0)

    async def missing(self, digests: tuple[str, ...]) -> tuple[str, ...]:
        """Those of `digests` that the host does not have for this sandbox."""

        async def ask(talk: _Talk) -> tuple[str, ...]:
            await talk.say(Has(digests=digests))
            return (await talk.word()).missing or ()

        found: tuple[str, ...] = await self._persist(ask)
        return found

    async def put(self, file: IO[bytes], digest: str, size: int, progress: Progress = lambda done, of: None) -> None:
        """Send an object of `size` bytes; nothing is sent when the host has it. `progress` gets bytes done and all."""

        async def send(talk: _Talk) -> None:
            file.seek(0)
            await talk.say(Put(digest=digest, bytes=size))
            if (await talk.word()).done:
                progress(size, size)
                return
            window, sent = Window(), 0
            while content := file.read(streams.MAX_CONTENT):
                while not window.open():
                    window.ack((await talk.word()).ack or 0)
                window.spend(content)
                await talk.send(content)
                sent += len(content)
                progress(sent, size)
            async with asyncio.timeout(ANSWER_S):
                while not (await talk.word()).done:
                    pass

        await self._persist(send)

    async def get(self, digest: str, into: IO[bytes], progress: Progress = lambda done, of: None) -> int:
        """Fetch an object into a file that can be rewound; raises Unreachable when it is not what its digest says."""

        async def fetch(talk: _Talk) -> int:
            into.seek(0)
            into.truncate()
            await talk.say(Get(digest=digest))
            size = (await talk.word()).bytes or 0
            hashed, taken, intake = hashlib.sha256(), 0, Intake()
            while isinstance(heard := await talk.hear(), bytes):
                try:
                    into.write(heard)
                except OSError as wrong:
                    raise _unwritable(wrong) from wrong
                hashed.update(heard)
                taken += len(heard)
                if taken > size:
                    raise ValueError("more bytes than announced")
                progress(taken, size)
                total = intake.take(heard)
                if total is not None:
                    await talk.say(Ack(ack=total))
            if "sha256:" + hashed.hexdigest() != digest:
                raise ValueError("an object that is not what its digest says")
            return taken

        return int(await self._persist(fetch))


def _unwritable(wrong: OSError) -> ClientError:
    kind = ErrorKind.DISK_FULL if wrong.errno == errno.ENOSPC else ErrorKind.INTERNAL
    return ClientError(ErrorInfo(kind=kind, message=f"an output cannot be written here: {wrong.strerror or wrong}"))
