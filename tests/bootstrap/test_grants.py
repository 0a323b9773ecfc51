"""Grants at a real OpenBao, with the worker's own rights: opened once, closed with proof, found by a sweep."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hvac
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from paddock.bootstrap.errors import NotYet, Refused
from paddock.bootstrap.grants import Grants
from paddock.bootstrap.shelf import Grant, Shelf
from paddock.contracts.errors import PaddockError
from paddock.contracts.report import Gone
from tests.bootstrap.rig import Environment, soon


def entities(env: Environment) -> set[str]:
    try:
        found = env.root.list("identity/entity/name")
    except hvac.exceptions.InvalidPath:
        return set()
    return set(found["data"]["keys"]) if found else set()


def lives(env: Environment, accessor: str) -> bool:
    try:
        env.root.auth.token.lookup_accessor(accessor)
    except hvac.exceptions.VaultError:
        return False
    return True


def test_opening_twice_is_one_grant(env: Environment) -> None:
    host, machine = env.opened()
    first = env.grants.open(host, 1, machine.instance, soon())
    again = env.grants.open(host, 1, machine.instance, soon(900))
    assert again == first
    assert lives(env, first.wrapping)


def test_a_used_grant_is_not_opened_again_by_a_late_try(env: Environment) -> None:
    host, machine = env.opened()
    env.enrolment(machine, env.config(host)).run()
    env.grants.open(host, 1, machine.instance, soon())
    with pytest.raises(Refused, match="used before"):
        env.enrolment(machine, env.config(host)).run()


def test_its_record_says_what_it_is_and_holds_no_secret(env: Environment) -> None:
    host, machine = env.host(), env.cloud.machine()
    ends = soon()
    env.grants.open(host, 3, machine.instance, ends)
    (grant,) = [one for one in env.grants.list() if one.host == host]
    assert (grant.name, grant.state, grant.instance, grant.ends) == (f"{host}.3", "open", machine.instance, ends)
    assert env.wrapped(grant.name) not in grant.model_dump_json()


@pytest.mark.parametrize("part", ["record", "fill", "mint", "new_entity"])
def test_a_worker_that_died_on_the_way_goes_on(env: Environment, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed right after each write: the next worker makes one grant of it, and what was made before is refused."""
    host, machine = env.host(), env.cloud.machine()
    minted: list[str] = []
    mint = Shelf.mint

    def watched(self: Shelf, name: str, lives_s: int) -> object:
        made = mint(self, name, lives_s)
        minted.append(made[1])
        return made

    monkeypatch.setattr(Shelf, "mint", watched)
    with monkeypatch.context() as dying, pytest.raises(SystemExit):
        dies_after(dying, "write" if part == "record" else part)
        env.grants.open(host, 1, machine.instance, soon())
    grant = env.grants.open(host, 1, machine.instance, soon())
    assert lives(env, grant.wrapping)
    assert env.enrolment(machine, env.config(host)).run().name == f"{host}.1"
    (receipt,) = env.grants.close(host, 1, "joined")
    assert receipt.gone is Gone.PROVED
    if part == "record":  # its token was known, so it was ended; one that nobody knows ends by its time
        assert not lives(env, minted[0])


def dies_after(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real: Callable[..., object] = getattr(Shelf, name)

    def die(self: Shelf, *given: object) -> None:
        real(self, *given)
        raise SystemExit

    monkeypatch.setattr(Shelf, name, die)


def test_an_unused_grant_that_is_closed_is_tried_and_refused(env: Environment) -> None:
    host, machine = env.opened()
    grant = env.grants.open(host, 1, machine.instance, soon())
    (receipt,) = env.grants.close(host, 1, "the machine failed")
    assert (receipt.resource, receipt.id, receipt.gone) == ("grant", f"{host}.1", Gone.PROVED)
    assert receipt.checked_by.startswith("unwrapping it was tried and refused; ")
    assert not lives(env, grant.wrapping)
    assert not lives(env, grant.token)
    assert f"{host}.1" not in entities(env)
    with pytest.raises(NotYet, match="no grant as"):
        env.enrolment(machine, env.config(host, patience_s=0.5)).run()
    with pytest.raises(Refused, match="is closed: the machine failed"):
        env.grants.open(host, 1, machine.instance, soon())


def test_what_was_taken_out_before_the_close_works_no_more(env: Environment) -> None:
    host, _ = env.opened()
    wrapped = env.wrapped(f"{host}.1")
    taken = env.unwrap(f"{host}.1")
    assert taken.read("paddock/data/hosts/recorder")
    (receipt,) = env.grants.close(host, 1, "terminated")
    assert receipt.gone is Gone.PROVED
    with pytest.raises(hvac.exceptions.Forbidden):
        taken.read("paddock/data/hosts/recorder")
    taken.token = wrapped
    with pytest.raises((hvac.exceptions.InvalidRequest, hvac.exceptions.Forbidden)):
        taken.adapter.post("/v1/sys/wrapping/unwrap", json={})


def test_closing_after_joining_twice_and_never_opened(env: Environment) -> None:
    host, machine = env.opened()
    env.enrolment(machine, env.config(host)).run()
    for _ in range(2):
        (receipt,) = env.grants.close(host, 1, "joined")
        assert receipt.gone is Gone.PROVED
    (receipt,) = env.grants.close(host, 7, "its create failed")
    assert receipt.gone is Gone.PROVED
    with pytest.raises(Refused, match="is closed: its create failed"):
        env.grants.open(host, 7, env.cloud.machine().instance, soon())
    env.grants.open(host, 8, machine.instance, soon())  # a machine whose grant is closed may get another


@pytest.mark.parametrize("broken", ["revoke", "end_entity", "empty"])
def test_a_close_that_did_not_end_all_of_it_is_unproved(
    gcp: Environment, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, _ = gcp.opened()
    with monkeypatch.context() as planted:
        planted.setattr(Shelf, broken, lambda *_: None)
        (receipt,) = gcp.grants.close(host, 1, "planted")
    assert receipt.gone is Gone.UNPROVED
    assert receipt.checked_by.startswith("the store still has ")
    (receipt,) = gcp.grants.close(host, 1, "again")
    assert receipt.gone is Gone.PROVED


def test_a_close_during_an_opening_wins(gcp: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    host, machine = gcp.host(), gcp.cloud.machine()
    for place in ("new_entity", "mint", "write", "fill"):
        attempt = ("new_entity", "mint", "write", "fill").index(place) + 1
        with monkeypatch.context() as planted:
            closes_after(planted, place, gcp.grants, host, attempt)
            with pytest.raises((Refused, NotYet)):
                gcp.grants.open(host, attempt, machine.instance, soon())
        (receipt,) = gcp.grants.close(host, attempt, "again")
        assert receipt.gone is Gone.PROVED
        with pytest.raises(Refused, match="is closed"):
            gcp.grants.open(host, attempt, machine.instance, soon())
        with pytest.raises(NotYet, match="no grant as"):
            gcp.enrolment(machine, gcp.config(host, attempt, patience_s=0.3)).run()


def closes_after(monkeypatch: pytest.MonkeyPatch, name: str, grants: Grants, host: str, attempt: int) -> None:
    real: Callable[..., object] = getattr(Shelf, name)
    closed: list[str] = []

    def then(self: Shelf, *given: object) -> object:
        answer = real(self, *given)
        if not closed:
            closed.append(name)
            grants.close(host, attempt, "terminated meanwhile")
        return answer

    monkeypatch.setattr(Shelf, name, then)


def test_the_sweep_finds_grants_whose_host_is_gone(env: Environment) -> None:
    host, _ = env.opened()
    other, _ = env.opened()
    done, _ = env.opened()
    env.grants.close(done, 1, "joined")
    mine = {host, other, done}
    living = frozenset({(host, 1), (other, 2)})
    assert [grant.name for grant in env.grants.left(living) if grant.host in mine] == [f"{other}.1"]
    assert env.grants.close(other, 1, "its host is gone")[0].gone is Gone.PROVED
    assert not [grant for grant in env.grants.left(living) if grant.host in mine]


def test_old_closed_grants_and_made_up_entities_are_forgotten(gcp: Environment) -> None:
    closed, _ = gcp.opened()
    gcp.grants.close(closed, 1, "joined")
    host, machine = gcp.opened()
    with pytest.raises(NotYet):
        gcp.enrolment(gcp.cloud.machine(), gcp.config(host, patience_s=0.1)).run()
    assert any(name.startswith("entity_") for name in entities(gcp))
    assert gcp.grants.forget(datetime.now(UTC) - timedelta(days=1)) >= 1
    assert not any(name.startswith("entity_") for name in entities(gcp))
    known = {grant.name for grant in gcp.grants.list()}
    assert {f"{closed}.1", f"{host}.1"} <= known
    gcp.grants.forget(datetime.now(UTC) + timedelta(seconds=1))
    known = {grant.name for grant in gcp.grants.list()}
    assert f"{closed}.1" not in known
    assert f"{host}.1" in known
    assert gcp.enrolment(machine, gcp.config(host)).run().name == f"{host}.1"


def test_bad_orders_are_refused_in_words(gcp: Environment) -> None:
    with pytest.raises(PaddockError, match="from 1 on"):
        gcp.grants.open("h", 0, "machine", soon())
    with pytest.raises(Refused, match="end before it begins"):
        gcp.grants.open(gcp.host(), 1, gcp.cloud.machine().instance, soon(-5))
    with pytest.raises(PaddockError, match="a grant lasts 10500 s at most"):
        gcp.grants.join(gcp.host(), soon(4 * 3600))


# What the worker may not do


def test_the_workers_token_opens_nothing_but_grants(gcp: Environment) -> None:
    worker = hvac.Client(url=gcp.store.address, token=gcp.token_file.read_text().strip(), namespace=gcp.name)
    tries: list[tuple[str, str, dict[str, object]]] = [
        ("GET", "paddock/data/hosts/recorder", {}),
        ("GET", "paddock/data/hosts/temporal", {}),
        ("POST", "pki/sign/host", {"csr": "x", "common_name": "x"}),
        ("PUT", "sys/policies/acl/paddock-host", {"policy": 'path "*" { capabilities = ["sudo"] }'}),
        ("POST", "auth/token/create", {"policies": ["paddock-host"]}),
        ("POST", "auth/machine/role/host", {"role_type": "jwt"}),
        ("POST", "identity/entity/name/mine", {"policies": ["paddock-host"]}),
        ("POST", "identity/entity", {"name": "mine", "policies": ["paddock-host"]}),
        ("POST", "auth/token/roles/paddock-host", {"allowed_policies": "root"}),
    ]
    for method, path, body in tries:
        with pytest.raises(hvac.exceptions.Forbidden):
            worker.adapter.request(method, f"/v1/{path}", json=body or None)
    with pytest.raises((hvac.exceptions.InvalidRequest, hvac.exceptions.Forbidden)):
        worker.adapter.post("/v1/auth/token/create/paddock-host", json={"policies": ["paddock-worker"]})


def test_a_grants_token_signs_its_own_name_only_and_few_times(gcp: Environment) -> None:
    host, _ = gcp.opened()
    other, _ = gcp.opened()
    taken = gcp.unwrap(f"{host}.1")
    for path in (f"paddock/data/grants/{other}.1", f"paddock/data/attempts/{host}.1"):
        with pytest.raises(hvac.exceptions.Forbidden):
            taken.read(path)
    for names in (
        {"common_name": f"{other}.1", "uri_sans": f"spiffe://paddock/{gcp.name}/host/{host}.1"},
        {"common_name": f"{host}.1", "uri_sans": f"spiffe://paddock/{gcp.name}/host/{other}.1"},
        {"common_name": f"{host}.1", "alt_names": f"{other}.1"},
        {"common_name": f"{host}.1", "ip_sans": "127.0.0.1"},
    ):
        with pytest.raises(hvac.exceptions.InvalidRequest):
            taken.adapter.post("/v1/pki/sign/host", json={"csr": _request(), **names})
    for _ in range(2):
        taken.read("paddock/data/hosts/recorder")
    with pytest.raises(hvac.exceptions.Forbidden):
        taken.read("paddock/data/hosts/recorder")


def _request() -> str:
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return made.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def test_a_worker_without_its_token_says_so(gcp: Environment, tmp_path: Path) -> None:
    grants = Grants(gcp.grants_config.model_copy(update={"token_file": tmp_path / "none"}))
    with pytest.raises(NotYet, match="the environment worker's token cannot be read"):
        grants.list()
    (tmp_path / "empty").write_text("\n")
    grants = Grants(gcp.grants_config.model_copy(update={"token_file": tmp_path / "empty"}))
    with pytest.raises(Refused, match="holds no token"):
        grants.list()
    (tmp_path / "wrong").write_text("s.nobody\n")
    grants = Grants(gcp.grants_config.model_copy(update={"token_file": tmp_path / "wrong"}))
    with pytest.raises(Refused, match=r"refused to list grants \(403\)"):
        grants.list()


def test_a_grant_is_read_again_as_it_was_written() -> None:
    grant = Grant(host="h", attempt=1, state="open", instance="i", ends=soon(), wrapping="a", token="b")
    assert Grant.model_validate_json(grant.model_dump_json()) == grant
