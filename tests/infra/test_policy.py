"""checkov over modules and examples: no finding but the exceptions, each with its reason beside the resource."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.infra import rig

# Each has its reason in the module, as `checkov:skip=<id>:<reason>`.
ACCEPTED = {
    ("CKV2_AWS_11", "aws_vpc.ground"),
    ("CKV_GCP_26", "google_compute_subnetwork.hosts"),
    ("CKV_GCP_74", "google_compute_subnetwork.hosts"),
}


def judge(policy: Path, folder: Path, home: Path) -> dict[str, Any]:
    """checkov's verdict on a folder, without asking anybody outside."""
    argv = [
        str(policy / "bin" / "checkov"),
        "-d",
        str(folder),
        "--framework",
        "terraform",
        "--skip-download",
        "-o",
        "json",
    ]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "LOG_LEVEL": "ERROR"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def where(checks: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(one["check_id"], ".".join(one["resource"].split(".")[-2:])) for one in checks}


def test_nothing_is_found_but_what_was_accepted_with_a_reason(policy: Path, tmp_path: Path) -> None:
    shutil.copytree(rig.SOURCE, tmp_path / "terraform", ignore=shutil.ignore_patterns(".terraform*"))
    verdict = judge(policy, tmp_path / "terraform", tmp_path)
    results = verdict["results"]
    assert results["parsing_errors"] == []
    assert where(results["failed_checks"]) == set()
    assert where(results["skipped_checks"]) == ACCEPTED
    assert all(len(one["check_result"]["suppress_comment"]) > 30 for one in results["skipped_checks"])
    seen = {Path(one["file_path"]).parts[2] for one in results["passed_checks"] if "modules" in one["file_path"]}
    assert seen == set(rig.MODULES)
    assert verdict["summary"]["passed"] >= 80


def test_weaknesses_that_were_put_in_are_found(policy: Path, tmp_path: Path) -> None:
    shutil.copytree(rig.SOURCE / "modules", tmp_path / "modules", ignore=shutil.ignore_patterns(".terraform*"))
    planted = (
        ("aws-host-ground", '= "required"', '= "optional"', "CKV_AWS_79"),
        ("gcp-host-ground", 'block-project-ssh-keys = "true"', 'block-project-ssh-keys = "false"', "CKV_GCP_32"),
        ("gcp-host-ground", "can_ip_forward   = false", "can_ip_forward   = true", "CKV_GCP_36"),
    )
    for module, old, new, _ in planted:
        file = tmp_path / "modules" / module / "main.tf"
        text = file.read_text()
        assert text.count(old) == 1
        file.write_text(text.replace(old, new))
    found = {check for check, _ in where(judge(policy, tmp_path / "modules", tmp_path)["results"]["failed_checks"])}
    assert {check for *_, check in planted} <= found
