"""Hosts at a real OpenBao: the right machine gets its credentials, once, and writes them where only it reads them."""

import os
import stat
import threading
import time
from datetime import UTC, datetime, timedelta

import hvac
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from paddock.bootstrap.enrol import ByJoinToken
from paddock.bootstrap.errors import NotYet, Refused
from paddock.contracts.errors import ErrorKind, PaddockError
from tests.bootstrap.rig import API_KEY, RECORDER, Environment, soon
from tests.secrets.rig import until


def test_the_right_machine_gets_a_certificate_of_its_name(env: Environment) -> None:
    host, machine = env.opened()
    config = env.config(host)
    done = env.enrolment(machine, config).run()
    places = config.places
    assert places.certificate
    assert places.key
    assert places.recorder
    made = x509.load_pem_x509_certificate(places.certificate.read_bytes())
    authority = x509.load_pem_x509_certificate(env.root.read("pki/cert/ca")["data"]["certificate"].encode())
    made.verify_directly_issued_by(authority)
    assert [name.value for name in made.subject] == [f"{host}.1"]
    assert made.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == [f"spiffe://paddock/{env.name}/host/{host}.1"]
    use = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(use) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    life = made.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(hours=23) < life <= timedelta(hours=24)
    assert done.until == made.not_valid_after_utc.timestamp()
    key = load_pem_private_key(places.key.read_bytes(), None)
    assert key.public_key() == made.public_key()
    assert places.recorder.read_text() == RECORDER
    assert done.files == (places.key, places.certificate, places.recorder)
    assert not done.already


def test_files_are_for_their_owner_only_and_nothing_else_is_left(env: Environment) -> None:
    host, machine = env.opened()
    config = env.config(host)
    assert config.places.key
    before = os.umask(0)
    try:
        done = env.enrolment(machine, config).run()
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in done.files} == {0o600}
    assert set(config.places.key.parent.iterdir()) == set(done.files)


def test_the_token_is_given_back(env: Environment) -> None:
    host, machine = env.host(), env.cloud.machine()
    grant = env.grants.open(host, 1, machine.instance, soon())
    assert env.root.auth.token.lookup_accessor(grant.token)["data"]["num_uses"] == 8
    env.enrolment(machine, env.config(host)).run()
    with pytest.raises(hvac.exceptions.VaultError, match="invalid accessor"):
        env.root.auth.token.lookup_accessor(grant.token)


def test_an_api_key_instead_of_a_certificate(gcp: Environment) -> None:
    host, machine = gcp.opened()
    config = gcp.config(host, temporal="api-key")
    done = gcp.enrolment(machine, config).run()
    assert config.places.api_key
    assert config.places.certificate
    assert config.places.api_key.read_text() == API_KEY
    assert not config.places.certificate.exists()
    assert done.until == 0


def test_a_certificate_is_never_longer_than_the_store_allows(gcp: Environment) -> None:
    host, machine = gcp.opened()
    done = gcp.enrolment(machine, gcp.config(host, certificate_s=20 * 86_400)).run()
    assert done.until - time.time() <= 48 * 3600 + 5


def test_the_second_use_is_refused_in_words(env: Environment) -> None:
    host, machine = env.opened()
    env.enrolment(machine, env.config(host)).run()
    with pytest.raises(Refused, match="was used before, or its time is over") as caught:
        env.enrolment(machine, env.config(host)).run()
    assert "somebody else used it" in caught.value.info.remedy


def test_of_many_at_once_one_gets_in(gcp: Environment) -> None:
    host, machine = gcp.opened()
    gate, got = threading.Barrier(8), []

    def enrol() -> None:
        enrolment = gcp.enrolment(machine, gcp.config(host))
        gate.wait(10)
        try:
            got.append(enrolment.run().name)
        except Refused as wrong:
            got.append(wrong.info.message)

    threads = [threading.Thread(target=enrol) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got.count(f"{host}.1") == 1
    assert got.count(f"the grant of {host}.1 was used before, or its time is over") == 7


def test_a_restart_finds_its_credentials_and_asks_nobody(env: Environment) -> None:
    host, machine = env.opened()
    config = env.config(host)
    first = env.enrolment(machine, config).run()
    asked = len(machine.server.asked)
    again = env.enrolment(machine, config).run()
    assert (again.already, set(again.files), again.until) == (True, set(first.files), first.until)
    assert len(machine.server.asked) == asked


@pytest.mark.parametrize("spoilt", ["certificate", "key", "recorder"])
def test_credentials_that_do_not_hold_are_asked_for_again(gcp: Environment, spoilt: str) -> None:
    host, machine = gcp.opened()
    config = gcp.config(host)
    gcp.enrolment(machine, config).run()
    getattr(config.places, spoilt).write_bytes(b"")
    with pytest.raises(Refused, match="used before"):
        gcp.enrolment(machine, config).run()


def test_a_certificate_of_another_machine_is_not_ones_own(gcp: Environment) -> None:
    host, machine = gcp.opened()
    config = gcp.config(host)
    gcp.enrolment(machine, config).run()
    other = config.model_copy(update={"attempt": 2, "patience_s": 0.2})
    with pytest.raises(NotYet, match=rf"no grant as {host}\.2"):
        gcp.enrolment(machine, other).run()


def test_a_machine_that_asks_too_early_waits_for_its_grant(env: Environment) -> None:
    host, machine = env.host(), env.cloud.machine()
    enrolment, done = env.enrolment(machine, env.config(host, patience_s=60.0)), []
    thread = threading.Thread(target=lambda: done.append(enrolment.run()))
    thread.start()
    one_try = 5 if env.cloud.name == "aws" else 1
    until(lambda: len(machine.server.asked) > one_try, 30)  # it has come back at least once
    env.grants.open(host, 1, machine.instance, soon())
    thread.join(60)
    assert [one.name for one in done] == [f"{host}.1"]


def test_the_time_of_a_grant_ends(env: Environment) -> None:
    host, machine = env.host(), env.cloud.machine()
    grant = env.grants.open(host, 1, machine.instance, soon(2))

    def over() -> bool:
        try:
            env.root.auth.token.lookup_accessor(grant.wrapping)
        except hvac.exceptions.VaultError:
            return True
        return False

    until(over, 30)
    with pytest.raises(Refused, match="used before, or its time is over"):
        env.enrolment(machine, env.config(host)).run()


def test_a_grant_that_was_replaced_in_its_locker_is_seen(gcp: Environment) -> None:
    host, machine = gcp.opened()
    bait = gcp.root.adapter.post("/v1/sys/wrapping/wrap", json={"token": "x"}, headers={"X-Vault-Wrap-TTL": "60s"})
    gcp.root.secrets.kv.v2.create_or_update_secret(
        f"grants/{host}.1", secret={"wrapped": bait["wrap_info"]["token"]}, mount_point="paddock"
    )
    with pytest.raises(Refused, match="somebody may have replaced it"):
        gcp.enrolment(machine, gcp.config(host)).run()


def test_what_the_operator_did_not_put_in_is_named(gcp: Environment) -> None:
    host, machine = gcp.opened()
    gcp.root.secrets.kv.v2.delete_latest_version_of_secret("hosts/recorder", mount_point="paddock")
    try:
        with pytest.raises(Refused, match="has no hosts/recorder") as caught:
            gcp.enrolment(machine, gcp.config(host)).run()
    finally:
        gcp.root.secrets.kv.v2.undelete_secret_versions("hosts/recorder", versions=[1], mount_point="paddock")
    assert caught.value.info.remedy == "bao kv put -mount=paddock hosts/recorder value=-"


def test_a_place_that_cannot_be_written_is_named(gcp: Environment) -> None:
    host, machine = gcp.opened()
    config = gcp.config(host)
    assert config.places.key
    nowhere = config.places.model_copy(update={"key": config.places.key.parent / "nowhere" / "key"})
    with pytest.raises(PaddockError, match="cannot be written") as caught:
        gcp.enrolment(machine, config.model_copy(update={"places": nowhere})).run()
    assert (caught.value.kind, caught.value.info.field) == (ErrorKind.SET_UP, str(nowhere.key))


def test_a_credential_without_a_place_is_refused_before_anything_is_asked(gcp: Environment) -> None:
    host, machine = gcp.opened()
    config = gcp.config(host)
    homeless = config.model_copy(update={"places": config.places.model_copy(update={"key": None})})
    with pytest.raises(PaddockError, match="does not say where that goes"):
        gcp.enrolment(machine, homeless)
    assert not machine.server.asked


# Join tokens


def join_file(env: Environment, host: str, seconds: float = 300) -> ByJoinToken:
    file = env.directory / f"join-{host}"
    file.write_text(env.grants.join(host, soon(seconds)).value + "\n")
    file.chmod(0o600)
    return ByJoinToken(file)


def test_a_join_token_works_once_and_is_removed(gcp: Environment) -> None:
    host = gcp.host()
    opener = join_file(gcp, host)
    stolen = opener.file.read_text()
    done = gcp.enrolment(opener, gcp.config(host, 0)).run()
    assert done.name == f"{host}.0"
    assert not opener.file.exists()
    opener.file.write_text(stolen)
    with pytest.raises(Refused, match="used before"):
        gcp.enrolment(opener, gcp.config(host, 0)).run()


def test_a_newer_join_token_ends_the_older_one(gcp: Environment) -> None:
    host = gcp.host()
    old = join_file(gcp, host).file.read_text()
    new = join_file(gcp, host)
    kept = new.file.read_text()
    new.file.write_text(old)
    with pytest.raises(Refused, match="used before, or its time is over"):
        gcp.enrolment(new, gcp.config(host, 0)).run()
    new.file.write_text(kept)
    assert gcp.enrolment(new, gcp.config(host, 0)).run().name == f"{host}.0"


def test_a_join_token_is_for_its_host_only(gcp: Environment) -> None:
    host, other = gcp.host(), gcp.host()
    opener = join_file(gcp, host)
    with pytest.raises(Refused, match=rf"refused to sign a certificate for {other}\.0"):
        gcp.enrolment(opener, gcp.config(other, 0)).run()


@pytest.mark.parametrize(("content", "words"), [(None, "cannot be read"), ("", "no join token"), ("a b", "no join")])
def test_a_bad_join_file_is_refused_in_words(gcp: Environment, content: str | None, words: str) -> None:
    file = gcp.directory / "bad-join"
    file.unlink(missing_ok=True)
    if content is not None:
        file.write_text(content)
    with pytest.raises(Refused, match=words):
        gcp.enrolment(ByJoinToken(file), gcp.config(gcp.host(), 0)).run()
