"""Who runs what: no two kinds of processes share a uid, and without root nobody has one."""

import os
from pathlib import Path

import pytest

from paddock.host.users import Users


def test_every_process_of_a_host_has_a_uid_of_its_own() -> None:
    users = Users(62000, root=True)
    uids = [users.recorder, users.broker, users.worker]
    for index in range(50):
        uids += [users.supervisor(index), users.vmm(index)]
    assert None not in uids
    assert len(set(uids)) == len(uids)
    assert 0 not in uids
    assert users.service_gid not in uids


def test_without_root_everything_runs_as_its_own_user() -> None:
    users = Users(62000, root=False)
    assert {users.recorder, users.broker, users.worker, users.supervisor(3), users.vmm(3), users.service_gid} == {None}


def test_here_is_root_only_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert Users.here(5000).root
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not Users.here(5000).root


def test_a_file_gets_its_mode_and_as_root_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("x")
    Users(62000, root=False).own(file, 1, 1, 0o640)
    assert file.stat().st_mode & 0o777 == 0o640
    assert file.stat().st_uid == os.geteuid()
    if os.geteuid() == 0:
        Users(62000, root=True).own(file, 62001, None, 0o600)
        assert (file.stat().st_uid, file.stat().st_gid) == (62001, os.getegid())
