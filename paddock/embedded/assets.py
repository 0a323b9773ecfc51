"""What a host needs to start microVMs, and where it lies: `assets.json` in the cache directory."""

import os
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from paddock.contracts.base import Strict
from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.contracts.ids import Digest
from paddock.embedded.build import file_digest, recorded

_FILE = "assets.json"
_REMEDY = "run `make setup`"


class ImageAsset(Strict):
    """A root file system that sandboxes may be started from."""

    name: str
    path: str
    digest: Digest


class Assets(Strict):
    """Kernel, initrd, VMM and images of this machine; paths are absolute once loaded."""

    kernel: str
    kernel_digest: Digest
    initrd: str
    initrd_digest: Digest
    agent_digest: Digest
    qemu: str
    images: dict[str, ImageAsset]


def cache_dir() -> Path:
    """Where built assets and templates are kept: `$XDG_CACHE_HOME/paddock`, else `~/.cache/paddock`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "paddock"


def save(cache: Path, assets: Assets) -> None:
    """Write the list; paths below `cache` are stored relative to it, so that the directory may be moved."""
    stored = _with_paths(assets, lambda path: _below(cache, path))
    cache.mkdir(parents=True, exist_ok=True)
    partial = cache / f".{_FILE}.partial"
    partial.write_text(stored.model_dump_json(indent=2) + "\n")
    os.replace(partial, cache / _FILE)


def load(cache: Path, *, verify: bool = False) -> Assets:
    """Read the list and check that each file is the one that was built; raises PaddockError SET_UP with a remedy.

    Size and recorded digest are always compared; `verify` also reads every byte (about half a second).
    """
    try:
        stored = Assets.model_validate_json((cache / _FILE).read_bytes())
    except FileNotFoundError:
        raise PaddockError(ErrorKind.SET_UP, f"no assets in {cache}", remedy=_REMEDY) from None
    except (OSError, ValidationError) as error:
        raise PaddockError(ErrorKind.SET_UP, f"{cache / _FILE} cannot be used: {error}", remedy=_REMEDY) from None
    assets = _with_paths(stored, lambda path: str(cache / path))
    if not os.access(assets.qemu, os.X_OK):
        raise PaddockError(ErrorKind.SET_UP, f"{assets.qemu} is not there", remedy=_REMEDY)
    _check(Path(assets.kernel), assets.kernel_digest, verify)
    _check(Path(assets.initrd), assets.initrd_digest, verify)
    for image in assets.images.values():
        _check(Path(image.path), image.digest, verify)
    return assets


def _check(path: Path, digest: str, verify: bool) -> None:
    known = recorded(path)
    if known is None or known.digest != digest or (verify and file_digest(path) != digest):
        raise PaddockError(ErrorKind.SET_UP, f"{path} is missing or was changed", remedy=_REMEDY)


def _below(cache: Path, path: str) -> str:
    own = Path(path)
    return str(own.relative_to(cache)) if own.is_relative_to(cache) else path


def _with_paths(assets: Assets, change: Callable[[str], str]) -> Assets:
    images = {name: image.model_copy(update={"path": change(image.path)}) for name, image in assets.images.items()}
    return assets.model_copy(
        update={"kernel": change(assets.kernel), "initrd": change(assets.initrd), "images": images}
    )
