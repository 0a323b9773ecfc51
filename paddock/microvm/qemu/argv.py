"""QEMU's command line, for a template and its clones: the same devices in the same order, or a clone cannot load."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

PORT: Final = "paddock.0"
SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


class Fd(IntEnum):
    """Numbers of the descriptors that QEMU inherits, in the order in which they are handed over."""

    QMP = 3
    CHANNEL = 4
    MEMORY = 5
    IMAGE = 6
    KERNEL = 7
    INITRD = 8


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a guest sees: it cannot change between template and clone."""

    accel: str
    vcpu: int
    memory_mib: int

    @property
    def cpu(self) -> str:
        """The processor model: under TCG x86-64-v2, which wheels and Go programs ask for and TCG can do cheaply."""
        return "host" if self.accel == "kvm" else TCG_CPU


TCG_CPU: Final = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt"


def _common(qemu: str, hardware: Hardware, *, share: bool, console: str) -> list[str]:
    memory = f"{hardware.memory_mib}M"
    backend = f"memory-backend-file,id=ram0,mem-path=/proc/self/fd/{Fd.MEMORY:d},size={memory}"
    return [
        qemu,
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-M", "microvm,acpi=on,memory-backend=ram0", "-accel", hardware.accel, "-cpu", hardware.cpu),
        *("-smp", str(hardware.vcpu), "-m", memory),
        *("-object", f"{backend},share={'on' if share else 'off'}"),
        *("-chardev", console, "-serial", "chardev:console"),
        *("-device", "virtio-rng-device", "-device", "virtio-serial-device"),
        *("-chardev", f"socket,id=channel,fd={Fd.CHANNEL:d}"),
        *("-device", f"virtserialport,chardev=channel,name={PORT}"),
        *("-add-fd", f"fd={Fd.IMAGE:d},set=1"),
        "-blockdev",
        "driver=raw,node-name=root,read-only=on,file.driver=file,file.filename=/dev/fdset/1,file.locking=off",
        *("-device", "virtio-blk-device,drive=root"),
        *("-chardev", f"socket,id=qmp,fd={Fd.QMP:d}", "-mon", "chardev=qmp,mode=control"),
        *("-sandbox", SANDBOX),
    ]


def template(qemu: str, hardware: Hardware, kernel_words: str) -> list[str]:
    """Boot: memory is written through, the console goes to stdout, which is the log."""
    return [
        *_common(qemu, hardware, share=True, console="stdio,id=console,signal=off"),
        *("-kernel", f"/proc/self/fd/{Fd.KERNEL:d}", "-initrd", f"/proc/self/fd/{Fd.INITRD:d}"),
        *("-append", kernel_words),
    ]


def clone(qemu: str, hardware: Hardware) -> list[str]:
    """Load: memory is mapped privately, the console is dropped, since a guest could fill a disk through it."""
    return [
        *_common(qemu, hardware, share=False, console="null,id=console"),
        *("-incoming", "defer"),
    ]


def kernel_words(hardware: Hardware, disk_mib: int, tsc_khz: int | None) -> str:
    """The guest kernel's command line; `tsc_khz` None: the guest measures (fine under KVM, may hang under TCG)."""
    words = [
        "console=ttyS0 quiet loglevel=3 panic=-1 reboot=t rdinit=/init audit=0 cryptomgr.notests",
        f"paddock.disk_mib={disk_mib}",
    ]
    if hardware.accel == "tcg":
        # TCG only: with address randomisation every exec is translated anew (docs/limits.md says what that costs).
        words.append("norandmaps nokaslr mitigations=off no_timer_check tsc=reliable")
        if tsc_khz:
            words.append(f"tsc_early_khz={tsc_khz}")
    return " ".join(words)


def key_words(hardware: Hardware, disk_mib: int) -> str:
    """All of both command lines that decides whether a saved state can be loaded; no measured numbers."""
    words = kernel_words(hardware, disk_mib, None)
    return "\n".join([*template("qemu", hardware, words), *clone("qemu", hardware)])
