"""Azure's Resource Manager on loopback: virtual machines with disks, interfaces and addresses."""

from tests.clouds.arm.emulator import Arm

__all__ = ["Arm"]
