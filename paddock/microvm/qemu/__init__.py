"""The QEMU driver: its command line, its control socket, its process."""
