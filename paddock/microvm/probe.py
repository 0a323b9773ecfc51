"""What QEMU can do on this machine. `/dev/kvm` that opens proves nothing: only a guest that runs does."""

import contextlib
import os
import re
import select
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import Final

from paddock.contracts.errors import PaddockError
from paddock.microvm import tsc
from paddock.microvm.driver import Machine, Support
from paddock.microvm.jail import Jail
from paddock.microvm.qemu.process import spawn

LIMIT_S: Final = 2.0
_PROOF: Final = b"as init process"
"""The kernel says this when it starts the first program: from here on a guest does what programs do."""


def probe(machine: Machine) -> Support:
    """Accelerator and version of the QEMU that is there; takes at most 2 s."""
    version = _version(machine.qemu)
    if version is None:
        return Support(False, "", "", f"{machine.qemu} is not there or does not run")
    why_not = kvm_refused(machine)
    if why_not is None:
        return Support(True, "kvm", version, "a probe guest reached its first program under KVM")
    return Support(True, "tcg", version, f"KVM is not used: {why_not}")


def kvm_refused(machine: Machine) -> str | None:
    """Why KVM cannot be used here; None when a probe guest proved that it can."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/kvm: {error.strerror}"
    if not re.search(r"^flags\s*:.*\b(vmx|svm)\b", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
        return "/dev/kvm opens, but the processor has no vmx or svm flag: an ordinary guest would be emulated"
    return probe_guest(machine, "kvm")


def probe_guest(machine: Machine, accel: str, limit_s: float = LIMIT_S) -> str | None:
    """Boot a guest until its first program would start; None when it got there within `limit_s`, else why not."""
    console, its = socket.socketpair()
    kernel = os.open(machine.kernel, os.O_RDONLY | os.O_CLOEXEC)
    initrd = os.open(machine.initrd, os.O_RDONLY | os.O_CLOEXEC)
    with console, tempfile.TemporaryDirectory(prefix="paddock-probe-") as directory:
        log = Path(directory) / "log"
        try:
            with its:
                jail = Jail(Path(directory))
                pid = spawn(_argv(machine.qemu, accel), (its.fileno(), kernel, initrd), log, jail)
        except PaddockError as error:
            return str(error)
        finally:
            os.close(kernel)
            os.close(initrd)
        try:
            said = _listen(console, limit_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if _PROOF in said:
            return None
        words = log.read_text(errors="replace").strip().splitlines()
        last = words[0] if words else f"no first program within {limit_s:g} s"
        return f"a probe guest did not run ({last})"


def processor() -> str:
    """The processor's name: part of what a saved state fits."""
    match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else os.uname().machine


def _argv(qemu: str, accel: str) -> list[str]:
    # Under TCG, which only tests ask for, a kernel that has to find its clock by itself hangs.
    clock = f"tsc_early_khz={tsc.measure_khz()} tsc=reliable" if accel == "tcg" else ""
    return [
        *(qemu, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-M", "microvm,acpi=on"),
        *("-accel", accel, "-cpu", "host" if accel == "kvm" else "qemu64", "-m", "128M"),
        *("-chardev", "socket,id=console,fd=3", "-serial", "chardev:console"),
        *("-kernel", "/proc/self/fd/4", "-initrd", "/proc/self/fd/5"),
        *("-append", f"console=ttyS0 loglevel=7 panic=-1 reboot=t rdinit=/init no_timer_check {clock}"),
    ]


def _listen(console: socket.socket, limit_s: float) -> bytes:
    deadline = time.monotonic() + limit_s
    said = b""
    while (left := deadline - time.monotonic()) > 0 and _PROOF not in said:
        if not select.select([console], [], [], left)[0]:
            break
        data = console.recv(65536)
        if not data:
            break
        said = (said + data)[-65536:]
    return said


def _version(qemu: str) -> str | None:
    with tempfile.TemporaryDirectory(prefix="paddock-probe-") as directory:
        log = Path(directory) / "log"
        try:
            pid = spawn([qemu, "--version"], (), log, Jail(Path(directory)))
        except PaddockError:
            return None
        os.waitpid(pid, 0)
        match = re.search(r"version ([^\n]+)", log.read_text(errors="replace"))
        return match[1].strip() if match else None
