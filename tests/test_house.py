"""The house: sizes, mirrors, banned calls, and what no file may say. Each check is shown to catch its fault."""

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
OTHERS = {
    ".git",
    ".venv",
    "build",
    "dist",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    "node_modules",
}
SOURCES = ("paddock", "workflows", "activities", "providers", "worker")
LARGEST_BYTES = 15 << 10

MAY_START_PROCESSES = (
    "paddock/embedded/",
    *(f"paddock/host/{name}.py" for name in ("fork", "keeper", "processes")),
    "paddock/microvm/qemu/",
    *(f"paddock/microvm/{name}.py" for name in ("jail", "cgroup")),
)
STARTERS = {"subprocess", "os.fork", "os.posix_spawn", "os.system", "os.popen", "multiprocessing", "pty"}
CORES = ("paddock/policy/", "paddock/egress/http/", "paddock/egress/tls/", "paddock/microvm/channel/", "workflows/")
CLOCKS = {"time.time", "datetime.now", "datetime.datetime.now", "datetime.utcnow"}
# Shells inside rooms of cores: they read the clock and hand it on.
SHELLS = ("paddock/policy/store.py",)
WITHOUT_MIRROR = {"clouds", "observer", "servers", "e2e", "faults", "ui", "replay"}


def files(*suffixes: str) -> Iterator[Path]:
    """The repository's files, without what tools put there."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in OTHERS and not name.endswith(".egg-info")]
        for name in names:
            if not suffixes or name.endswith(suffixes):
                yield Path(folder) / name


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def modules() -> Iterator[Path]:
    return (path for folder in SOURCES for path in (ROOT / folder).rglob("*.py"))


# Sizes, docstrings, mirrors


def test_no_module_is_over_15_kb() -> None:
    large = {short(path): path.stat().st_size for path in files(".py", ".go") if path.stat().st_size > LARGEST_BYTES}
    assert not large, "split these modules by concern"


def test_every_folder_says_in_its_init_what_lives_there() -> None:
    silent = []
    for folder in SOURCES:
        for path in (ROOT / folder, *(p for p in (ROOT / folder).rglob("*") if p.is_dir())):
            if path.name in OTHERS or path.name.startswith("_") or not any(path.glob("*.py")):
                continue
            init = path / "__init__.py"
            if not init.exists() or not ast.get_docstring(ast.parse(init.read_text())):
                silent.append(short(path))
    assert not silent, "add an __init__.py with one sentence"


def test_every_module_begins_with_what_it_holds() -> None:
    silent = [short(path) for path in modules() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not silent, "add a docstring of one sentence"


def test_the_test_tree_mirrors_the_sources() -> None:
    strangers = []
    for path in (ROOT / "tests").rglob("test_*.py"):
        folder = path.parent.relative_to(ROOT / "tests")
        if folder.parts and folder.parts[0] in WITHOUT_MIRROR:
            continue
        if not any((ROOT / base / folder).is_dir() for base in ("", "paddock")):
            strangers.append(short(path))
    assert not strangers, "move these tests to where their source lies"


def test_every_room_has_tests() -> None:
    rooms = [path for path in (ROOT / "paddock").iterdir() if path.is_dir() and (path / "__init__.py").exists()]
    empty = [path.name for path in rooms if not any((ROOT / "tests" / path.name).rglob("test_*.py"))]
    assert not empty, "these rooms of paddock/ have no test under tests/"


def test_the_library_is_typed_for_those_who_import_it() -> None:
    assert (ROOT / "paddock" / "py.typed").is_file()


def test_the_folder_packaging_stays_no_package() -> None:
    # An __init__.py there would hide the library of that name, which pytest and build import.
    assert not (ROOT / "packaging" / "__init__.py").exists()


# Banned calls


def banned(path: str, text: str) -> list[str]:
    """What a module must not call, as `path:line: words`."""
    tree = ast.parse(text)
    core = path.startswith(CORES) and path not in SHELLS
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            name = ast.unparse(node.value.func)
            if name.endswith(("create_task", "ensure_future")) and "group" not in name and "tg." not in name:
                found.append((node.lineno, f"{name} without keeping the task: it may be collected while it runs"))
        if isinstance(node, ast.Call) and core and ast.unparse(node.func) in CLOCKS:
            found.append((node.lineno, f"{ast.unparse(node.func)} in a core: take the time as an argument"))
        if isinstance(node, ast.ExceptHandler) and _swallows(node):
            found.append((node.lineno, "a broad except that does nothing"))
        if not path.startswith(MAY_START_PROCESSES):
            found += [
                (line, f"{name} here: only {', '.join(MAY_START_PROCESSES)} start processes")
                for line, name in _starts(node)
            ]
    return [f"{path}:{line}: {words}" for line, words in found]


def _swallows(node: ast.ExceptHandler) -> bool:
    broad = node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
    return broad and all(isinstance(one, ast.Pass) for one in node.body)


def _starts(node: ast.AST) -> Iterator[tuple[int, str]]:
    match node:
        case ast.Import(names=names):
            yield from ((node.lineno, name.name) for name in names if name.name in STARTERS)
        case ast.ImportFrom(module=str(module)) if module in STARTERS:
            yield node.lineno, module
        case ast.Call(func=func) if ast.unparse(func) in STARTERS or "create_subprocess" in ast.unparse(func):
            yield node.lineno, ast.unparse(func)


def test_no_module_makes_a_banned_call() -> None:
    assert not [line for path in modules() for line in banned(short(path), path.read_text())]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("paddock/client/x.py", "asyncio.create_task(work())"),
        ("paddock/policy/x.py", "now = time.time()"),
        ("workflows/x.py", "now = datetime.now(UTC)"),
        ("paddock/client/x.py", "import subprocess"),
        ("paddock/egress/x.py", "os.fork()"),
        ("paddock/audit/x.py", "try:\n    f()\nexcept Exception:\n    pass"),
    ],
)
def test_each_banned_call_is_seen(path: str, text: str) -> None:
    assert banned(path, text)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("paddock/client/x.py", "task = asyncio.create_task(work())"),
        ("paddock/embedded/x.py", "import subprocess"),
        ("paddock/host/x.py", "now = time.time()"),
    ],
)
def test_what_is_allowed_is_not_banned(path: str, text: str) -> None:
    assert not banned(path, text)


# What no file may say


@functools.cache
def registries() -> frozenset[str]:
    """Hosts of the package registries that this machine's clients are configured with, and of their defaults."""
    words = [_ask(sys.executable, "-m", "pip", "config", "list"), _ask("go", "env", "GOPROXY", "GOSUMDB")]
    words.append(_ask("npm", "config", "get", "registry"))
    # pip keeps its own default nowhere but in its code.
    index = "from pip._internal.models.index import PyPI; print(PyPI.url, PyPI.file_storage_domain)"
    words.append(_ask(sys.executable, "-c", index))
    for sources in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")):
        if sources.is_file():
            words.append(sources.read_text(errors="replace"))
    found = {urlsplit(url).hostname or "" for word in words for url in re.findall(r"https?://[^\s'\",|]+", word)}
    found |= set(re.findall(r"\b(?:[a-z0-9-]+\.)+(?:org|com|io|net|dev)\b", f"{words[1]} {words[3]}"))
    return frozenset(host for host in found if "." in host and not re.fullmatch(r"[\d.]+|localhost.*", host))


def _ask(*argv: str) -> str:
    if not shutil.which(argv[0]):
        return ""
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT).stdout


def saying(words: frozenset[str], texts: Iterator[tuple[str, bytes]]) -> list[str]:
    """The files that say one of `words`."""
    found = []
    for name, content in texts:
        found += [f"{name} says {word}" for word in words if word.encode() in content]
    return found


def contents() -> Iterator[tuple[str, bytes]]:
    return ((short(path), path.read_bytes()) for path in files() if path.is_file() and not path.is_symlink())


def test_no_file_names_a_package_registrys_host() -> None:
    assert registries(), "no client on this machine told its registry"
    assert not saying(registries(), contents())


def test_no_file_names_this_clones_place() -> None:
    assert not saying(frozenset({f"{ROOT}/"}), contents())


def test_a_planted_registry_host_is_seen() -> None:
    host = sorted(registries())[0]
    assert saying(registries(), iter([("planted", f"--index-url {host}/simple".encode())]))


# Requirements


@pytest.mark.parametrize(
    "name",
    [
        "requirements/dev.txt",
        "requirements/host.txt",
        "paddock/embedded/go-requirements.txt",
        *(f"tests/infra/requirements/{name}.txt" for name in ("uv", "tools", "policy")),
    ],
)
def test_every_requirement_is_pinned_with_hashes_and_without_an_address(name: str) -> None:
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert lines
    assert all(re.match(r"\S+==\S+", line) and "--hash=sha256:" in line for line in lines)
    assert "://" not in text
    assert "index-url" not in text
