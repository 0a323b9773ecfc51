"""The real guest behind the channel: programs, files, captured traffic, and hosts that come and go."""

import asyncio
import io
import re
import secrets
import struct
import tarfile
import time

import pytest

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.microvm.channel.frames import Kind, encode
from paddock.microvm.channel.link import Link, fresh_identity
from paddock.microvm.channel.messages import How, Known, ProbeKind
from paddock.microvm.channel.transport import GuestTransport
from tests.microvm.fake_guest import Handler, until
from tests.microvm.machine import DEADLINE_S, Lab, chunks, clone

pytestmark = pytest.mark.vm


async def soon(awaitable):  # type: ignore[no-untyped-def]
    return await asyncio.wait_for(awaitable, DEADLINE_S)


async def test_output_and_errors_stay_apart_and_the_exit_code_is_the_programs_own(lab: Lab) -> None:
    async with clone(lab) as box:
        status, out, err = await box.run("/bin/sh", "-c", "echo out; echo err >&2; exit 7")
        assert (status.how, status.value, out, err) == (How.EXITED, 7, b"out\n", b"err\n")
        status, _, _ = await box.run("/bin/sh", "-c", "kill -TERM $$")
        assert (status.how, status.value) == (How.SIGNALLED, 15)
        status, _, _ = await box.run("/no/such/program")
        assert (status.how, status.value) == (How.NEVER_STARTED, 127)
        status, _, _ = await box.run("/etc/passwd")
        assert (status.how, status.value) == (How.NEVER_STARTED, 126)
        assert (await box.sh("id -u; pwd")).split() == ["1000", "/"]


async def test_standard_input_arrives_whole_and_a_signal_ends_a_program(lab: Lab) -> None:
    async with clone(lab) as box:
        data = secrets.token_bytes(2_000_000)
        handle, output = box.start("/bin/cat", stdin=True)
        await soon(handle.write_stdin(data))
        handle.stdin_eof()
        assert (await soon(handle.exit())).value == 0
        assert bytes(output[1]) == data
        handle, _ = box.start("/bin/sleep", "1000")
        await soon(handle.started())
        handle.signal(9)
        status = await soon(handle.exit())
        assert (status.how, status.value) == (How.SIGNALLED, 9)


def tar_of(*members: tuple[str, bytes | str]) -> bytes:
    """A tar; a member whose content is `str` is a symlink to it."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


async def test_files_go_in_and_come_out_byte_for_byte(lab: Lab) -> None:
    async with clone(lab) as box:
        content = secrets.token_bytes(3_000_000)
        tar = tar_of(("data/big.bin", content), ("data/link", "big.bin"))
        await soon(
            box.link.put_files("/work", chunks(tar[at : at + 50_000] for at in range(0, len(tar), 50_000)), 1000, 1000)
        )
        assert (await box.sh("stat -c %u:%s /work/data/big.bin; readlink /work/data/link")).split() == [
            "1000:3000000",
            "big.bin",
        ]
        back = b"".join([part async for part in box.link.get_files("/work", ["data/*.bin"], 4 << 20)])
        with tarfile.open(fileobj=io.BytesIO(back)) as archive:
            assert archive.getnames() == ["data/big.bin"]
            assert archive.extractfile("data/big.bin").read() == content  # type: ignore[union-attr]


async def test_more_output_than_allowed_is_refused_with_words(lab: Lab) -> None:
    async with clone(lab) as box:
        await box.sh("head -c 300000 /dev/zero > /work/big")
        with pytest.raises(PaddockError) as caught:
            async for _ in box.link.get_files("/work", ["*"], 100_000):
                pass
        assert caught.value.kind is ErrorKind.OUTPUT_LIMIT


@pytest.mark.parametrize(
    "member",
    [("../evil", b"x"), ("/etc/evil", b"x"), ("a/../../evil", b"x"), ("link", "/etc/passwd"), ("link", "../../etc")],
)
async def test_a_tar_member_that_leaves_its_root_fails_the_transfer_with_its_name(
    lab: Lab, member: tuple[str, bytes | str]
) -> None:
    async with clone(lab) as box:
        with pytest.raises(PaddockError, match=re.escape(member[0])):
            await soon(box.link.put_files("/work", chunks([tar_of(member)]), 1000, 1000))
        status, _, _ = await box.run("/bin/ls", "/evil", "/etc/evil", "/work/link")
        assert status.value != 0


class Server(asyncio.Protocol):
    """Answers one HTTP request, whatever it is."""

    def __init__(self, transport: GuestTransport) -> None:
        self.transport = transport
        self.got = b""

    def data_received(self, data: bytes) -> None:
        self.got += data
        if b"\r\n\r\n" in self.got:
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nfenced")
            self.transport.close()


def name_query(query: bytes) -> str:
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    return ".".join(labels)


class Fence(Handler):
    """Knows `allowed.test` at 198.18.0.9; takes connections to it, refuses the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.servers: list[Server] = []

    def connect(self, transport: GuestTransport, address: str, port: int) -> None:
        super().connect(transport, address, port)
        if address != "198.18.0.9":
            transport.refuse("no rule")
            return
        self.servers.append(Server(transport))
        transport.set_protocol(self.servers[-1])
        transport.accept()

    async def dns(self, query: bytes, tcp: bool) -> bytes | None:
        self.names.append(name_query(query))
        question = query[12:]
        question = question[: question.index(b"\0") + 5]
        if self.names[-1] != "allowed.test":
            return query[:2] + b"\x81\x83\0\1\0\0\0\0\0\0" + question
        is_a = question[-4:-2] == b"\0\1"
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4" + bytes([198, 18, 0, 9]) if is_a else b""
        return query[:2] + b"\x81\x80\0\1" + struct.pack(">H", int(is_a)) + bytes(4) + question + answer


async def test_names_and_connections_of_the_guest_come_to_the_handler_and_nowhere_else(lab: Lab) -> None:
    fence = Fence()
    async with clone(lab, fence) as box:
        status, out, err = await box.run("curl", "-sS", "-m", "20", "http://allowed.test:8080/path?q=1")
        assert (status.value, out) == (0, b"fenced"), err
        assert "allowed.test" in fence.names
        assert (fence.taken[0].address, fence.taken[0].port) == ("198.18.0.9", 8080)
        assert fence.servers[0].got.startswith(b"GET /path?q=1 HTTP/1.1\r\nHost: allowed.test:8080\r\n")
        status, _, _ = await box.run("curl", "-sS", "-m", "20", "http://unknown.test/")
        assert status.value == 6
        status, _, _ = await box.run("curl", "-sS", "-m", "20", "http://203.0.113.1:81/")
        assert status.value != 0
        assert [(one.address, one.port) for one in fence.taken[1:]] == [("203.0.113.1", 81)]
        # UDP is refused at once, so that clients fall back instead of hanging.
        udp = "import socket; s=socket.socket(2,2); s.settimeout(30); s.connect(('203.0.113.1',9))"
        status, _, err = await box.run("python3", "-c", f"{udp}; s.send(b'x'); s.recv(1)")
        assert b"PermissionError" in err or b"ConnectionRefusedError" in err


async def test_probes_from_inside_say_what_the_fence_does(lab: Lab) -> None:
    async with clone(lab, Fence()) as box:
        assert (await soon(box.link.probe(ProbeKind.DNS, "allowed.test"))).text == "198.18.0.9"
        assert not (await soon(box.link.probe(ProbeKind.DNS, "unknown.test"))).ok
        assert (await soon(box.link.probe(ProbeKind.TCP, "198.18.0.9", 80))).ok
        assert not (await soon(box.link.probe(ProbeKind.TCP, "203.0.113.1", 80))).ok
        assert not (await soon(box.link.probe(ProbeKind.UDP, "203.0.113.1", 443))).ok


async def test_clones_have_their_own_random_numbers_names_and_the_hosts_clock(lab: Lab) -> None:
    seen = set()
    for name in ("one", "two", "three"):
        async with clone(lab, name=name) as box:
            random, host, machine, now = (
                await box.sh(
                    "head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n'; echo; "
                    "hostname; cat /etc/machine-id; date +%s.%N"
                )
            ).split()
            assert host == name
            assert abs(time.time() - float(now)) < 2.0
            seen |= {random, machine}
    assert len(seen) == 6


async def test_a_paused_clone_that_is_handed_out_has_its_new_identity_before_its_next_program(lab: Lab) -> None:
    async with clone(lab, name="ready") as box:
        assert await box.sh("hostname") == "ready\n"
        await soon(box.vm.pause())
        answer = box.link.identify(fresh_identity("handed-out", "f" * 32))
        handle, output = box.start("/bin/sh", "-c", "hostname; cat /etc/machine-id; date +%s.%N")
        await asyncio.sleep(0)
        await soon(box.vm.resume())
        assert (await soon(handle.exit())).value == 0
        name, machine, now = output[1].decode().split()
        assert (name, machine) == ("handed-out", "f" * 32)
        assert abs(time.time() - float(now)) < 1.0
        assert answer.done()


async def test_a_flood_of_output_waits_for_its_reader_and_nothing_of_it_is_lost(lab: Lab) -> None:
    async with clone(lab) as box:
        handle, output = box.start("/bin/sh", "-c", "yes flood | head -c 3000000; echo done >&2")
        handle.pause()
        await until(lambda: len(output[1]) > 200 * 1024, "the flood")
        await soon(box.link.ping())
        assert len(output[1]) <= 256 * 1024
        assert not handle.exited_yet()
        # Another program gets through beside it.
        assert await box.sh("echo beside") == "beside\n"
        handle.resume()
        assert (await soon(handle.exit())).value == 0
        assert bytes(output[1]) == (b"flood\n" * 500_000)[:3_000_000]
        assert output[2] == b"done\n"


async def test_a_fork_bomb_is_contained_and_killed_as_a_whole(lab: Lab) -> None:
    async with clone(lab) as box:
        handle, _ = box.start("/bin/sh", "-c", "f() { f & f & }; f; sleep 1000")
        await soon(handle.started())
        for _ in range(3):
            await soon(box.link.ping())
        handle.signal(9)
        status = await soon(handle.exit())
        assert status.how is How.SIGNALLED
        assert int((await box.sh("ps -e 2>/dev/null | wc -l || ls -d /proc/[0-9]* | wc -l")).split()[-1]) < 100
        assert not box.vm.exited.done()


async def test_a_new_host_finds_running_programs_and_loses_no_byte_of_them(lab: Lab) -> None:
    lines = 40_000
    script = f"i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); done"
    want = b"".join(b"line %d\n" % number for number in range(lines))
    async with clone(lab) as box:
        again = box.vm.channel.dup()
        handle, output = box.start("/bin/sh", "-c", script)
        stream = handle.stream_id
        hosts = 0
        while not handle.exited_yet() and hosts < 5:
            before = len(output[1])
            await until(
                lambda before=before, handle=handle: len(output[1]) > before + 60_000 or handle.exited_yet(), "output"
            )
            if handle.exited_yet():
                break
            box.link.close()
            # The host died in the middle of a frame: its first half is on the way.
            again.send(encode(box.link.mux.session, Kind.DATA, stream, bytes(20_000))[: 7 + 100 * hosts])
            at, spare = len(output[1]), again.dup()
            adopted = []

            def on_known(link: Link, known: Known, at: int = at, adopted: list = adopted) -> None:  # type: ignore[type-arg]
                assert known.stream == stream
                adopted.append(link.adopt(known, lambda chan, data: output[chan].extend(data), stdout=at, stderr=0))

            box.link = await Link.open(
                again, identity=fresh_identity("box", ""), guest=Handler(), resume=True, on_known=on_known
            )
            await soon(box.link.hello())
            handle, again = adopted[0], spare
            hosts += 1
        assert (await soon(handle.exit())).value == 0
        assert hosts >= 2
        assert bytes(output[1]) == want
        handle.forget()
        assert await box.sh("echo still here") == "still here\n"
        again.close()


async def test_no_program_gains_privileges_and_outputs_bring_nothing_of_roots(lab: Lab) -> None:
    async with clone(lab) as box:
        assert (await box.sh("grep NoNewPrivs /proc/self/status")).split() == ["NoNewPrivs:", "1"]
        with pytest.raises(PaddockError, match="shadow: permission denied"):
            async for _ in box.link.get_files("/etc", ["shadow"], 100_000):
                pass
