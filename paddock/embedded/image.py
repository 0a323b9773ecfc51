"""The base image: a small Debian tree made by mmdebstrap, written as uncompressed EROFS, the same bytes each time."""

import os
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.embedded.assets import ImageAsset
from paddock.embedded.build import Progress, key, once, quiet, run, tool

PACKAGES = ("ca-certificates", "curl", "git", "python3", "usr-is-merged")
"""What the base image holds beside apt's minimal set."""

_RECIPE = "1"
# 2023-06-10, the time of every file. Zero would be before 1980, which zip archives cannot hold.
_EPOCH = 1_686_355_200
_UUID = "70616464-6f63-4b00-8000-000000000001"
_APT = "apt-get update && apt-get install mmdebstrap erofs-utils"


@dataclass(frozen=True, slots=True)
class _Source:
    site: str
    release: str
    component: str

    def line(self, keyring: str) -> str:
        signed = f" [signed-by={keyring}]" if keyring else ""
        return f"deb{signed} {self.site} {self.release} {self.component}"


def build_base(cache: Path, progress: Progress = quiet) -> ImageAsset:
    """The image named `base`, built from the package sources that this machine's apt is configured with.

    Works as root, and as a user who has sub-ids (mmdebstrap's unshare mode). About a minute.
    """
    suite, sources = _sources()
    inputs = key(_RECIPE, suite, *sources, *PACKAGES, *_DPKG, CLEAN, _pack("mkfs.erofs"))
    path = cache / "images" / f"base-{suite}-{inputs}.erofs"

    def make(partial: Path) -> None:
        progress("installing a Debian tree for the base image", None)
        _debootstrap(suite, sources, partial)

    built = once(path, make)
    return ImageAsset(name="base", path=str(built.path), digest=built.digest)


def _debootstrap(suite: str, sources: list[str], out: Path) -> None:
    mkfs = tool("mkfs.erofs", "erofs-utils")
    with tempfile.TemporaryDirectory(prefix="paddock-image-") as scratch:
        # mmdebstrap in unshare mode runs as another uid, which must be able to enter; it makes its own directory below.
        os.chmod(scratch, 0o1777)  # noqa: S103
        argv = [tool("mmdebstrap", "mmdebstrap"), "--variant=minbase", "--format=null"]
        # Its own cleaning would run behind the hooks that already packed the tree.
        argv += ["--skip=cleanup"]
        argv += [f"--mode={'root' if os.geteuid() == 0 else 'unshare'}", f"--include={','.join(PACKAGES)}"]
        argv += [f"--dpkgopt={option}" for option in _DPKG] + [f"--aptopt={option}" for option in _apt_options()]
        argv += [f"--customize-hook={CLEAN}", f"--customize-hook={_pack(mkfs)}"]
        argv += [f"--customize-hook=download /.image.erofs {shlex.quote(str(out))}"]
        argv += [suite, "/dev/null", *sources]
        fixed = {"TMPDIR": scratch, "SOURCE_DATE_EPOCH": str(_EPOCH), "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}
        # The image's own Python runs in there: a PYTHON* of whoever starts us would send its byte code elsewhere.
        ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        run(argv, env={**ours, **fixed}, remedy=_APT)


def _pack(mkfs: str) -> str:
    # A bind of the tree's own mount shows the directories below /proc, /sys and /dev instead of what is mounted there.
    return (
        'set -e; bare="$1/../bare-$$"; mkdir "$bare"; mount --bind "$1" "$bare"; '
        f"{shlex.quote(mkfs)} -T{_EPOCH} -U{_UUID} --exclude-regex='^(tmp|dev)/' --quiet "
        '"$1/../image-$$" "$bare" >&2; '
        'umount "$bare"; rmdir "$bare"; mv "$1/../image-$$" "$1/.image.erofs"'
    )


_DPKG = (
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/bug/*",
)

# Never touch "$1"/tmp: apt's configuration for this tree is there; without it apt works on the machine's own lists.
# The stdlib's .pyc files name the time of their source, and every time is changed below: unchecked hashes stay valid.
CLEAN = r"""set -e
chroot "$1" useradd --create-home --shell /bin/bash --uid 1000 --user-group agent
mkdir -p "$1/work"; chown 1000:1000 "$1/work"
chroot "$1" git config --system --add safe.directory '*'
ln -sfn /etc/ssl/certs/ca-certificates.crt "$1/usr/lib/ssl/cert.pem"
find "$1/usr" -name __pycache__ -type d -prune -exec rm -rf {} +
chroot "$1" python3 -m compileall -q -f --invalidation-mode unchecked-hash \
  /usr/lib/python3 /usr/lib/python3.* >&2 || true
printf '127.0.0.1 localhost\n::1 localhost\n' > "$1/etc/hosts"
printf 'nameserver 127.0.0.1\noptions timeout:2 attempts:1\n' > "$1/etc/.resolv.conf"
rm -f "$1/etc/resolv.conf"; mv "$1/etc/.resolv.conf" "$1/etc/resolv.conf"
: > "$1/etc/machine-id"; echo paddock > "$1/etc/hostname"
rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/cache/debconf/*-old "$1"/var/cache/ldconfig/* \
  "$1"/var/log/* "$1"/var/lib/dpkg/*-old "$1"/etc/*- "$1"/run/* "$1"/etc/apt/apt.conf.d/99mmdebstrap
"""


def _sources() -> tuple[str, list[str]]:
    fields = "$(ORIGIN)|$(CODENAME)|$(SITE)|$(RELEASE)|$(COMPONENT)"
    listing = run([tool("apt-get", "apt"), "indextargets", "--format", fields, "Created-By: Packages"])
    return parse_sources(listing, release=_release(), keyring=_keyring())


def parse_sources(listing: str, *, release: str, keyring: str) -> tuple[str, list[str]]:
    """The Debian release to build (this machine's, if its sources have it) and its one-line sources.

    `listing` is apt's own resolved configuration: origin, code name, site, release and component in each row.
    """
    rows = [row.split("|") for row in listing.splitlines() if row.count("|") == 4]
    suites = {codename for origin, codename, *_ in rows if origin == "Debian" and "-" not in codename}
    suite = release if release in suites else min(suites, default="")
    ours = [row for row in rows if row[0] == "Debian" and row[1].split("-")[0] == suite and row[4] == "main"]
    wanted = {_Source(*row[2:]) for row in ours}
    if not wanted:
        message = "apt knows no Debian package source with downloaded lists"
        raise PaddockError(ErrorKind.SET_UP, message, remedy="apt-get update (Debian), or name an image with --image")
    return suite, sorted(source.line(keyring) for source in wanted)


def _release() -> str:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split("=", 1)[1].strip('"') for line in lines if line.startswith("VERSION_CODENAME=")), "")


def _keyring() -> str:
    path = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    return str(path) if path.exists() else ""


def _apt_options() -> list[str]:
    """How this machine's apt reaches its sources: proxies and certificates."""
    dump = run(["apt-config", "dump", "Acquire"])
    return [line for line in dump.splitlines() if line.lower().startswith(("acquire::http", "acquire::https"))]
