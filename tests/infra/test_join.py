"""A host of the image enrols by its cloud's word at a real OpenBao, and what it does when it may not, or not yet."""

import importlib.util
import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from tests.infra.metadata import Metadata
from tests.infra.rig import ROOT
from tests.secrets.rig import Bao

SCRIPT = ROOT / "infra" / "image" / "join.py"


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    """A store with an authentication of machines, and one credential that each host gets."""
    server = Bao(tmp_path_factory.mktemp("bao"))
    root = server.root
    root.sys.create_or_update_policy("opens", 'path "secret/data/grants/*" { capabilities = ["read"] }')
    root.sys.create_or_update_policy("enrols", 'path "secret/data/hosts/*" { capabilities = ["read"] }')
    server.role("paddock-host", "opens", bound_audiences="hosts-of-prod", bound_subject="host-account")
    root.write_data("auth/token/roles/paddock-host", data={"allowed_policies": ["enrols"], "orphan": True})
    root.secrets.kv.v2.create_or_update_secret("hosts/temporal", secret={"api_key": "temporal-secret"})
    yield server
    server.close()


def grant(bao: Bao, name: str) -> None:
    """What the environment's worker leaves for a machine: a wrapped token that is unwrapped once."""
    made = bao.root.write_data("auth/token/create/paddock-host", data={"policies": ["enrols"]}, wrap_ttl="60s")
    secret = {"wrapped": made["wrap_info"]["token"]}
    bao.root.secrets.kv.v2.create_or_update_secret(f"grants/{name}", secret=secret)


@pytest.fixture
def metadata(bao: Bao) -> Iterator[Metadata]:
    assert isinstance(bao.key, EllipticCurvePrivateKey)
    served = Metadata(bao.key)
    yield served
    served.close()


@pytest.fixture(scope="module")
def join() -> ModuleType:
    spec = importlib.util.spec_from_file_location("paddock_join", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told(bao: Bao, where: Path, name: str, **changes: object) -> Path:
    """The file that comes with a machine's user data."""
    enrol = {
        "environment": "gcp-1",
        "host": name,
        "attempt": 1,
        "store": {"address": bao.address},
        "audience": "hosts-of-prod",
        "temporal": "api-key",
        "places": {"api_key": str(where / "api-key")},
        "auth_mount": "jwt",
        "role": "paddock-host",
        "kv_mount": "secret",
        "patience_s": 0.5,
    }
    said: dict[str, Any] = {"cloud": "gcp", "enrol": {**enrol, **changes}}
    (where / "join.json").write_text(json.dumps(said))
    return where / "join.json"


def test_a_host_that_was_ordered_gets_its_credential(
    join: ModuleType, bao: Bao, metadata: Metadata, tmp_path: Path
) -> None:
    grant(bao, "h1.1")
    assert join.attempt(told(bao, tmp_path, "h1"), metadata.address) == 0
    assert (tmp_path / "api-key").read_text() == "temporal-secret"
    assert stat.S_IMODE((tmp_path / "api-key").stat().st_mode) == 0o600
    assert all("audience=hosts-of-prod" in path for path in metadata.asked)


def test_a_host_that_has_it_asks_nobody_again(join: ModuleType, bao: Bao, metadata: Metadata, tmp_path: Path) -> None:
    grant(bao, "h2.1")
    file = told(bao, tmp_path, "h2")
    assert join.attempt(file, metadata.address) == 0
    metadata.asked.clear()
    assert join.attempt(file, metadata.address) == 0
    assert metadata.asked == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"host": "h9"}, "LATER"),  # nobody ordered it, or not yet
        ({"store": {"address": "http://127.0.0.1:9"}}, "LATER"),
        ({"audience": "hosts-of-staging"}, "REFUSED"),
        ({"role": "paddock-sandbox"}, "REFUSED"),
    ],
)
def test_it_says_whether_to_come_again_and_writes_nothing(
    join: ModuleType,
    bao: Bao,
    metadata: Metadata,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    change: dict[str, object],
    code: str,
) -> None:
    file = told(bao, tmp_path, "h3", **change)
    assert join.attempt(file, metadata.address) == getattr(join, code)
    said = capfd.readouterr().err
    assert said.startswith("paddock: ")
    assert "eyJ" not in said
    assert not (tmp_path / "api-key").exists()


def test_a_grant_that_somebody_used_is_refused(join: ModuleType, bao: Bao, metadata: Metadata, tmp_path: Path) -> None:
    grant(bao, "h4.1")
    left = bao.root.secrets.kv.v2.read_secret_version("grants/h4.1", raise_on_deleted_version=True)
    wrapped = left["data"]["data"]["wrapped"]
    bao.root.sys.unwrap(token=wrapped)
    assert join.attempt(told(bao, tmp_path, "h4"), metadata.address) == join.REFUSED


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "JSON"),
        ('{"cloud": "moon", "enrol": {}}', "cloud"),
        ('{"cloud": "gcp"}', "enrol"),
        ('{"cloud": "gcp", "relay_token": "x"}', "relay_token"),
        (None, "No such file"),
    ],
)
def test_a_wrong_file_is_named_and_not_tried_again(
    join: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, words: str
) -> None:
    if text is not None:
        (tmp_path / "join.json").write_text(text)
    assert join.main(["--wait", str(tmp_path / "join.json")]) == join.WRONG
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("codes", "left"), [([0, 9], [9]), ([1, 1, 0], []), ([1, 2], []), ([3, 0], [0])])
def test_it_insists_only_on_what_may_pass(join: ModuleType, codes: list[int], left: list[int]) -> None:
    todo = list(codes)
    join.insist(lambda: todo.pop(0))
    assert todo == left


def test_each_cloud_has_its_own_proof(join: ModuleType, bao: Bao, tmp_path: Path) -> None:
    said = json.loads(told(bao, tmp_path, "h5").read_text())
    found = {
        cloud: type(join.identity(join.Join.model_validate({**said, "cloud": cloud}), "http://127.0.0.1:9")).__name__
        for cloud in ("aws", "azure", "gcp")
    }
    assert found == {"aws": "Aws", "azure": "Azure", "gcp": "Gcp"}


def test_it_starts_as_a_program() -> None:
    done = subprocess.run([sys.executable, "-I", str(SCRIPT)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "paddock: usage: join.py [--wait] JOIN.json\n")
