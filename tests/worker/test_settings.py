"""An environment's file: what is wrong is named, and a machine is told who it is, and no secret."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from paddock.contracts.errors import PaddockError
from paddock.contracts.ground import Attempt, Choice
from paddock.host.config import HostConfig
from providers.contract import MAX_USER_DATA
from worker.settings import load

HOST = {"cache": "/var/cache/paddock", "temporal": "temporal:7233", "policy_public_key": "QUJD", "slots": 4}
ATTEMPT = Attempt(
    environment="aws-eu",
    host="h-1",
    attempt=3,
    choice=Choice(size="m8i.large", zone="eu-west-1a"),
    pool="default",
    deadline=datetime(2026, 12, 1, tzinfo=UTC),
)
AWS = {
    "kind": "aws",
    "regions": [
        {
            "name": "eu-west-1",
            "image": "ami-12345678",
            "subnets": {"eu-west-1a": "subnet-12345678"},
            "security_groups": ["sg-12345678"],
        }
    ],
}
TOML = """
environment = "aws-eu"
[provider]
kind = "joined"
[pool]
slots = 4
choices = [{size = "m8i.large", zone = "eu-west-1a"}, {size = "m7i.large", zone = "eu-west-1b", spot = true}]
size = {minimum = 0, maximum = 3, free_slots = 2}
[host]
cache = "/var/cache/paddock"
temporal = "temporal:7233"
policy_public_key = "QUJD"
"""


def file(tmp_path: Path, text: str | dict[str, Any]) -> Path:
    path = tmp_path / ("settings.toml" if isinstance(text, str) else "settings.json")
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


def test_a_file_has_a_provider_a_pool_and_what_hosts_are_told(tmp_path: Path) -> None:
    settings = load(file(tmp_path, TOML))
    assert settings.make_provider().name == "joined"
    assert settings.pool
    assert (settings.pool.environment, settings.pool.size.maximum, len(settings.pool.choices)) == ("aws-eu", 3, 2)


def test_a_machine_is_told_who_it_is_as_cloud_init_reads_it(tmp_path: Path) -> None:
    told = load(file(tmp_path, {"environment": "aws-eu", "host": HOST})).user_data()(ATTEMPT)
    assert told.startswith("#cloud-config\n")
    [written] = yaml.safe_load(told)["write_files"]
    config = HostConfig.model_validate_json(written["content"])
    assert (config.environment, config.host, config.attempt, config.slots) == ("aws-eu", "h-1", 3, 4)
    assert len(told.encode()) < MAX_USER_DATA


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("environment = ", "cannot read"),
        ("environment = 'A B'", "environment"),
        ("environment = 'e'\nregion = 'x'", "region"),
        ("environment = 'e'\n[pool]\nchoices = []", "pool.choices"),
        ("environment = 'e'\n[pool]\nchoices = [{size = 's'}]\nsize = {minimum = 2, maximum = 1}", "minimum 2"),
        ("environment = 'e'\n[host]\nhost = 'mine'", "each machine has its own"),
        ("environment = 'e'\n[host]\nslots = 0", "host"),
        ("environment = 'e'\n[pool]\nenvironment = 'f'\nchoices = [{size = 's'}]", "pool.environment is f"),
        ("environment = 'e'\n[pool]\nchoices = [{size = 's'}]\nlifetime_s = 300", "lifetime_s 300 must be more"),
        (TOML + "slots = 8", "host.slots is 8, and pool.slots 4"),
        ("[provider]\nkind = 'joined'", "environment"),
    ],
)
def test_what_is_wrong_is_named(text: str, named: str, tmp_path: Path) -> None:
    path = file(tmp_path, text)
    with pytest.raises(PaddockError) as raised:
        load(path)
    assert named in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_machine_has_the_slots_that_its_pool_counts(tmp_path: Path) -> None:
    [written] = yaml.safe_load(load(file(tmp_path, TOML)).user_data()(ATTEMPT))["write_files"]
    assert HostConfig.model_validate_json(written["content"]).slots == 4
    agreed = load(file(tmp_path, TOML + "slots = 4\n"))
    [written] = yaml.safe_load(agreed.user_data()(ATTEMPT))["write_files"]
    assert HostConfig.model_validate_json(written["content"]).slots == 4


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PaddockError, match="nowhere"):
        load(tmp_path / "nowhere.toml")


def started(path: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    bare = {"PATH": os.environ["PATH"], "HOME": str(path.parent), "AWS_EC2_METADATA_DISABLED": "true"}
    return subprocess.run(
        [sys.executable, "-m", "worker.environment", "--address", "127.0.0.1:1", "--config", str(path)],
        env=bare | more,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_worker_whose_pool_can_never_have_a_machine_refuses_to_start_and_says_why(tmp_path: Path) -> None:
    pool = {"choices": [{"size": "m8i.large", "zone": "eu-west-1a"}, {"size": "m8i.large", "zone": "eu-west-1b"}]}
    path = file(tmp_path, {"environment": "aws-eu", "provider": AWS, "pool": pool})
    done = started(path, AWS_ACCESS_KEY_ID="an-id", AWS_SECRET_ACCESS_KEY="a-secret")
    assert done.returncode == 2
    assert "the pool of aws-eu can never have a machine by its choice" in done.stderr
    assert done.stderr.endswith("(pool.choices)\n")
    assert "(m8i.large eu-west-1b): zone 'eu-west-1b' is not set up here: eu-west-1a can be ordered" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_without_its_clouds_credentials_refuses_to_start_and_names_them(tmp_path: Path) -> None:
    done = started(file(tmp_path, {"environment": "aws-eu", "provider": AWS}))
    assert done.returncode == 2
    assert "aws-eu" in done.stderr
    assert "AWS_ACCESS_KEY_ID" in done.stderr
    assert "Traceback" not in done.stderr
