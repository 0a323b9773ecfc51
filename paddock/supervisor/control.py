"""The supervisor's control socket: what the host worker may ask, one operation at a time on each connection."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from typing import Protocol

from paddock.contracts.errors import ErrorInfo, ErrorKind, PaddockError
from paddock.contracts.hosts import TaskDone
from paddock.contracts.spec import OutputGlob
from paddock.host import wire
from paddock.host.messages import Answer, Ask
from paddock.host.paths import peer_uid

log = logging.getLogger(__name__)


class Operations(Protocol):
    """What the control socket calls; `paddock.supervisor.main` composes it."""

    async def ready(self) -> Answer: ...
    async def attach(self, signed: str) -> Answer: ...
    async def run_task(self, ask: Ask, stdin: bytes | None) -> Answer: ...
    async def wait(self, task: int) -> TaskDone: ...
    async def grown(self) -> None: ...
    def kill(self, task: int) -> Answer: ...
    async def put(self, path: str, chunks: AsyncIterator[bytes]) -> Answer: ...
    def get(self, output: OutputGlob) -> AsyncIterator[bytes]: ...
    def change(self, ask: Ask) -> Answer: ...


class Control:
    """Serves `sock` until closed."""

    def __init__(self, operations: Operations, may_ask: frozenset[int]) -> None:
        self._operations, self._may_ask = operations, may_ask
        self._server: asyncio.Server | None = None

    async def serve(self, sock: socket.socket) -> None:
        self._server = await asyncio.start_unix_server(self._connection, sock=sock)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if peer_uid(writer.get_extra_info("socket")) not in self._may_ask:
            writer.close()
            return
        try:
            while True:
                frame = await wire.read(reader)
                try:
                    await self._do(frame.open(Ask), reader, writer)
                except PaddockError as wrong:
                    writer.write(wire.failure(wrong.info))
                except (asyncio.IncompleteReadError, ConnectionError):
                    raise  # whoever asked is gone
                except Exception as wrong:
                    # Hanging up would say that the sandbox is lost, and it lives.
                    log.exception("a request failed")
                    words = f"{type(wrong).__name__}: {wrong}"[:1000]
                    writer.write(wire.failure(ErrorInfo(kind=ErrorKind.INTERNAL, message=words)))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _do(self, ask: Ask, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        operations = self._operations
        match ask.op:
            case "ready":
                writer.write(wire.words(await operations.ready()))
            case "attach":
                writer.write(wire.words(await operations.attach(ask.signed)))
            case "run":
                stdin = None if ask.stdin_bytes is None else b"".join([part async for part in _content(reader)])
                writer.write(wire.words(await operations.run_task(ask, stdin)))
            case "wait":
                writer.write(wire.words(await operations.wait(ask.task)))
            case "watch":
                while not writer.is_closing():
                    writer.write(wire.words(Answer(grew=True)))
                    await writer.drain()
                    await operations.grown()
            case "kill":
                writer.write(wire.words(operations.kill(ask.task)))
            case "put":
                writer.write(wire.words(await operations.put(ask.path, _content(reader))))
            case "get":
                assert ask.output
                async for part in operations.get(ask.output):
                    writer.write(wire.content(part))
                    await writer.drain()
                writer.write(wire.content(b""))
            case _:
                writer.write(wire.words(operations.change(ask)))


async def _content(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while (frame := await wire.read(reader)).kind == wire.CONTENT and frame.payload:
        yield frame.payload
