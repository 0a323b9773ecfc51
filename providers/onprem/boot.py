"""The boot directory: what a site's boot service hands to a machine, as NoCloud reads it."""

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from providers.contract import ErrorClass, ProviderError
from providers.onprem.claims import Wanted

_FILES = ("meta-data", "user-data", "image", "wipe")


@dataclass(frozen=True, slots=True)
class BootDirectory:
    """One folder for each machine below `root`, all files 0600 and replaced whole.

    `user-data` and `meta-data` are NoCloud's; `image` holds the order's image when it names one. While `wipe` is there,
    the boot service hands out the image that erases the disks and turns the machine off.
    """

    root: Path

    def write(self, machine: str, wanted: Wanted) -> None:
        """Before the machine is turned on for an order. Raises ProviderError (transient)."""
        texts = {"meta-data": f"instance-id: {wanted.name}\nlocal-hostname: {wanted.name}\n"}
        if wanted.image:
            texts["image"] = f"{wanted.image}\n"
        # Last, as a boot service may take its presence as the sign that all is there.
        self._replace(machine, texts | {"user-data": wanted.user_data})

    def wipe(self, machine: str) -> None:
        """Before the machine is turned on to be wiped. Raises ProviderError (transient)."""
        self._replace(machine, {"wipe": ""})

    def clear(self, machine: str) -> None:
        """Nothing is handed to the machine any more. Raises ProviderError (transient)."""
        self._replace(machine, {})

    def _replace(self, machine: str, texts: dict[str, str]) -> None:
        folder = self.root / machine
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in _FILES:
                if name not in texts:
                    (folder / name).unlink(missing_ok=True)
            for name, text in texts.items():
                _put(folder, name, text)
            opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)
        except OSError as wrong:
            raise ProviderError(
                ErrorClass.TRANSIENT, f"{machine}: the boot directory {folder}: {wrong.strerror}", code="boot-directory"
            ) from None


def _put(folder: Path, name: str, text: str) -> None:
    """Whole or not at all; mkstemp makes it 0600 from its first moment."""
    opened, new = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
    try:
        with os.fdopen(opened, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, folder / name)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        raise
