"""Sandboxes' machines: the driver contract, QEMU behind it, templates, jails, and the channel into the guest."""
