"""QEMU as a driver: templates, clones, their confinement, and their end."""

import asyncio
import dataclasses
import fcntl
import json
import mmap
import os
import signal
import sys
from pathlib import Path

import pytest

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.spec import Shape
from paddock.microvm import probe, template
from paddock.microvm.cgroup import Cgroup, Limits, detect, prepare
from paddock.microvm.driver import Machine, Place
from paddock.microvm.qemu.driver import QemuDriver
from tests.microvm.fake_guest import until
from tests.microvm.machine import DEADLINE_S, Lab, clone

pytestmark = pytest.mark.vm

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another uid, a cgroup, a network namespace")


def status_of(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/status").read_text()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


async def test_a_template_is_found_again_and_another_shape_is_another_template(lab: Lab) -> None:
    directory = lab.template.directory.parent
    before = os.stat(lab.template.directory / "ram").st_mtime_ns
    again = await QemuDriver(lab.driver._machine).build_template(lab.image, Shape(), directory)
    assert again == lab.template
    assert os.stat(lab.template.directory / "ram").st_mtime_ns == before
    assert not [name for name in os.listdir(directory) if name.startswith(".boot")]


def test_every_part_that_made_a_template_is_in_its_name() -> None:
    parts = {"image": "i", "kernel": "k", "initrd": "d", "vmm": "v", "processor": "p", "command": "c"}
    keys = {template.make_key(**parts)} | {template.make_key(**{**parts, name: "other"}) for name in parts}
    assert len(keys) == 7


async def test_a_damaged_template_is_not_used(lab: Lab, tmp_path: Path) -> None:
    copy = tmp_path / lab.template.key
    copy.mkdir()
    for name in os.listdir(lab.template.directory):
        os.system(f"cp --sparse=always {lab.template.directory / name} {copy / name}")
    damaged = dataclasses.replace(lab.template, directory=copy)
    os.close(template.open_memory(damaged))
    with (copy / "ram").open("r+b") as ram:
        ram.seek(100 << 20)
        byte = ram.read(1)
        ram.seek(-1, os.SEEK_CUR)
        ram.write(bytes([byte[0] ^ 1]))
    with pytest.raises(PaddockError, match="was changed"):
        template.open_memory(damaged)
    (copy / "state").write_bytes(b"x" * 1000)
    assert not template.find(copy, lab.template.key)
    assert not copy.exists()


async def test_a_state_that_cannot_be_loaded_is_an_error_with_the_vmms_words(lab: Lab, tmp_path: Path) -> None:
    copy = tmp_path / "broken"
    copy.mkdir()
    (copy / "state").write_bytes(b"QEVM" + bytes(1000))
    broken = dataclasses.replace(lab.template, directory=copy)
    memory = template.open_memory(lab.template)
    vm = await lab.driver.start(broken, Place(tmp_path / "run", memory_fd=memory))
    with pytest.raises(PaddockError, match="did not load") as caught:
        await asyncio.wait_for(vm.loaded(), DEADLINE_S)
    assert caught.value.kind is ErrorKind.BOOT_FAILED
    await vm.destroy()
    os.close(memory)


def test_the_memory_that_clones_map_cannot_be_written_by_anyone(lab: Lab) -> None:
    fd = template.open_memory(lab.template)
    try:
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        with pytest.raises(PermissionError):
            mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE)
        for seals in (0, fcntl.F_SEAL_SHRINK):
            with pytest.raises(PermissionError):
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        private = mmap.mmap(fd, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        private[0] = private[0] ^ 1
        assert os.pread(fd, 1, 0)[0] != private[0]
        private.close()
    finally:
        os.close(fd)


async def test_a_vmm_that_is_killed_is_seen_and_everything_in_it_fails(lab: Lab) -> None:
    async with clone(lab) as box:
        handle, _ = box.start("/bin/sleep", "1000")
        await asyncio.wait_for(handle.started(), DEADLINE_S)
        os.kill(box.vm.pid, signal.SIGKILL)
        ended = await asyncio.wait_for(asyncio.shield(box.vm.exited), DEADLINE_S)
        assert (ended.pid, ended.signal, ended.code) == (box.vm.pid, signal.SIGKILL, None)
        with pytest.raises(PaddockError) as caught:
            await asyncio.wait_for(handle.exit(), DEADLINE_S)
        assert caught.value.kind is ErrorKind.SANDBOX_LOST
        assert await box.vm.destroy() == ended


async def test_a_guest_that_powers_off_or_panics_ends_its_vmm(lab: Lab) -> None:
    async with clone(lab) as box:
        box.link.shutdown()
        assert (await asyncio.wait_for(asyncio.shield(box.vm.exited), DEADLINE_S)).code == 0
    async with clone(lab) as box:
        box.start("/bin/sh", "-c", "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger", uid=0)
        await asyncio.wait_for(asyncio.shield(box.vm.exited), DEADLINE_S)


async def test_destroy_answers_when_the_process_is_reaped_and_twice_is_once(lab: Lab) -> None:
    async with clone(lab) as box:
        pid = box.vm.pid
        usage = box.vm.usage()
        assert usage.cpu_s > 0
        assert usage.rss_bytes >= usage.pss_bytes > 1 << 20
        ended = await box.vm.destroy()
        assert not Path(f"/proc/{pid}").exists()
        assert await box.vm.destroy() == ended
        assert box.vm.usage().cpu_s >= usage.cpu_s


@needs_root
async def test_a_confined_vmm_has_its_own_user_cgroup_and_an_empty_network_and_gains_nothing(lab: Lab) -> None:
    hierarchy = detect()
    prepare(hierarchy)
    group = Cgroup.create(f"test-vmm-{os.getpid()}", Limits(memory_bytes=1 << 30, pids=64), hierarchy)
    place = Place(lab.directory / "confined", uid=54321, gid=54322, cgroup_procs=group.procs_files())
    groups = os.getgroups()
    os.setgroups([*groups, 4242])
    try:
        async with clone(lab, place=place) as box:
            assert await box.sh("echo works") == "works\n"
            pid = box.vm.pid
            status = status_of(pid)
            assert status["Uid"].split() == ["54321"] * 4
            assert status["Gid"].split() == ["54322"] * 4
            assert status["Groups"] == ""
            assert status["NoNewPrivs"] == "1"
            assert status["Seccomp"] == "2"
            assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapInh"], 16) == 0
            assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
            devices = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
            assert [line.split(":")[0].strip() for line in devices] == ["lo"]
            assert Path(f"/proc/{pid}/environ").read_bytes() == b""
            assert os.getsid(pid) == pid
            assert status["NSpid"].split() == [str(pid), "1"]
            assert os.readlink("/proc/self/ns/pid_for_children") == os.readlink("/proc/self/ns/pid")
            assert pid in group.pids()
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert any(line.split()[:6] == ["Max", "core", "file", "size", "0", "0"] for line in limits.splitlines())
            opened = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
            files = {name for name in opened if name.startswith("/") and not name.startswith(("/dev/null", "/memfd:"))}
            assert files <= {str(lab.image.path), str(place.directory / "vmm.log")}
            group.kill()
            await asyncio.wait_for(asyncio.shield(box.vm.exited), DEADLINE_S)
        assert group.empty()
    finally:
        os.setgroups(groups)
        group.kill()
        group.remove()


VICTIM = """
import asyncio, json, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from paddock.microvm.driver import Image, Machine, Place, Template
from paddock.microvm.jail import give_up_root
from paddock.microvm.qemu.driver import QemuDriver
async def main():
    image = Image("base", Path({image!r}), "")
    template = Template({key!r}, Path({template!r}), 1, 256, image)
    driver = QemuDriver(Machine(Path({kernel!r}), Path({initrd!r}), {qemu!r}))
    uid = 54321 if os.geteuid() == 0 else None
    vm = await driver.start(template, Place(Path({run!r}), uid=uid, gid=uid))
    await vm.loaded()
    if uid:
        give_up_root(54320, 54320, uid)
    print(json.dumps([vm.pid, vm.usage().pss_bytes]), flush=True)
    if sys.argv[1] == "stay":
        await asyncio.sleep(1000)
    print(str(await vm.destroy()), flush=True)
asyncio.run(main())
"""


def victim(lab: Lab, run: Path) -> str:
    machine = lab.driver._machine
    return VICTIM.format(
        root=str(Path(__file__).resolve().parents[3]),
        image=str(lab.image.path),
        key=lab.template.key,
        template=str(lab.template.directory),
        kernel=str(machine.kernel),
        initrd=str(machine.initrd),
        qemu=machine.qemu,
        run=str(run),
    )


async def test_a_vmm_dies_with_the_process_that_started_it_also_under_another_user(lab: Lab, tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", victim(lab, tmp_path / "run"), "stay", stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid, _ = json.loads(await asyncio.wait_for(parent.stdout.readline(), DEADLINE_S))
    assert Path(f"/proc/{pid}").exists()
    parent.kill()
    await parent.wait()

    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    await until(gone, "the VMM's end")


@needs_root
async def test_a_supervisor_that_gave_up_root_still_sees_and_ends_its_vmm(lab: Lab, tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", victim(lab, tmp_path / "run"), "destroy", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(parent.communicate(), DEADLINE_S)
    first, second = out.decode().splitlines()
    pid, pss = json.loads(first)
    assert pss > 1 << 20
    assert f"(pid {pid})" in second
    assert not Path(f"/proc/{pid}").exists()


async def test_a_program_that_is_not_there_cannot_be_started_and_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    machine, children = lab.driver._machine, Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text()
    driver = QemuDriver(Machine(machine.kernel, machine.initrd, "/no/such/qemu"))
    support = driver.probe()
    assert (support.works, "/no/such/qemu" in support.why) == (False, True)
    with pytest.raises(PaddockError) as caught:
        await driver.build_template(lab.image, Shape(), tmp_path)
    assert caught.value.kind is ErrorKind.SET_UP
    assert set(children.read_text().split()) <= set(before.split())


def test_the_probe_takes_kvm_only_when_a_guest_proved_it_and_says_why_not(lab: Lab) -> None:
    machine = lab.driver._machine
    support = lab.driver.probe()
    assert support.works
    if support.accel == "kvm":
        assert probe.probe_guest(machine, "kvm") is None
    else:
        assert support.why.startswith("KVM is not used: ")
        if os.access("/dev/kvm", os.R_OK | os.W_OK):
            assert probe.probe_guest(machine, "kvm") is not None


def test_the_probe_guest_itself_can_succeed_and_its_limit_holds(lab: Lab) -> None:
    machine = lab.driver._machine
    assert probe.probe_guest(machine, "tcg", limit_s=DEADLINE_S) is None
    why = probe.probe_guest(machine, "tcg", limit_s=0.05)
    assert why is not None
    assert "no first program within 0.05 s" in why
