"""Everybody else at a real OpenBao: other machines, other accounts, forged, borrowed and old tokens."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from paddock.bootstrap.errors import NotYet, Refused
from tests.bootstrap.rig import AUDIENCE, Environment, Machine, soon
from tests.clouds.metadata import AWS_CLAIMS, Issuer, claims_of, unsigned

OTHERS: dict[str, list[dict[str, Any]]] = {
    "aws": [{"account": "999999999999"}, {"role": "somebody-else"}],
    "azure": [
        {"subscription": "99999999-2222-3333-4444-555555555555"},
        {"group": "Other-Group"},
        {"identity": "bbbbbbbb-bbbb-cccc-dddd-eeeeeeeeeeee"},
    ],
    "gcp": [
        {"project": "somebody-elses-project"},
        {"zone": "us-central1-a"},
        {"email": "other@paddock-test.iam.gserviceaccount.com"},
    ],
}


def refused(env: Environment, who: Machine | str, host: str, words: str) -> None:
    """Not let in, and the grant of the right machine is still there for it."""
    with pytest.raises(Refused, match=words):
        env.enrolment(who, env.config(host)).run()


def still_works(env: Environment, machine: Machine, host: str) -> None:
    assert env.enrolment(machine, env.config(host)).run().name == f"{host}.1"


def test_another_machine_gets_nothing_and_spoils_nothing(env: Environment) -> None:
    host, machine = env.opened()
    stranger = env.cloud.machine()
    with pytest.raises(NotYet, match=rf"no grant as {host}\.1 is open for this machine"):
        env.enrolment(stranger, env.config(host, patience_s=0.5)).run()
    still_works(env, machine, host)


def test_a_machine_with_a_grant_cannot_take_anothers(env: Environment) -> None:
    host, machine = env.opened()
    other, theirs = env.opened()
    with pytest.raises(NotYet, match=rf"no grant as {host}\.1 is open for this machine"):
        env.enrolment(theirs, env.config(host, patience_s=0.5)).run()
    still_works(env, theirs, other)
    still_works(env, machine, host)


def test_other_accounts_are_refused_even_where_a_grant_is_open(env: Environment) -> None:
    for change in OTHERS[env.cloud.name]:
        host, machine = env.opened(**change)
        words = "project, subscription, account, zone or identity"
        refused(env, machine, host, words)


def test_a_borrowed_token_does_not_open_another_hosts_locker(env: Environment) -> None:
    host, machine = env.opened()
    other, theirs = env.opened()
    borrowed = theirs.identity.prove(AUDIENCE).value
    with pytest.raises(NotYet, match="no grant as"):
        env.enrolment(borrowed, env.config(host, patience_s=0.5)).run()
    still_works(env, machine, host)
    still_works(env, theirs, other)


def test_a_token_seen_on_its_way_is_worth_nothing_once_it_was_used(env: Environment) -> None:
    host, machine = env.opened()
    seen = machine.identity.prove(AUDIENCE).value
    assert env.enrolment(seen, env.config(host)).run().name == f"{host}.1"
    refused(env, seen, host, "used before")
    env.grants.close(host, 1, "joined")
    with pytest.raises(NotYet, match="no grant as"):
        env.enrolment(seen, env.config(host, patience_s=0.5)).run()


def test_a_token_for_another_audience_is_refused(env: Environment) -> None:
    host, machine = env.opened()
    refused(env, machine.identity.prove("https://other.example.com/").value, host, "another audience")
    still_works(env, machine, host)


TIMES: list[tuple[dict[str, int | None], str]] = [
    ({"exp": -60, "iat": -600, "nbf": -600}, "it has expired"),
    ({"exp": 900, "iat": 600, "nbf": 600}, "it is not valid yet"),
    ({"exp": None, "iat": None, "nbf": None}, "it never ends"),
]


@pytest.mark.parametrize(("times", "words"), TIMES)
def test_a_token_out_of_its_time_is_refused(env: Environment, times: dict[str, int | None], words: str) -> None:
    host, machine = env.opened()
    now = int(time.time())
    moved = {name: None if by is None else now + by for name, by in times.items()}
    refused(env, env.cloud.issuer.sign({**machine.claims, **moved}), host, words)
    still_works(env, machine, host)


def test_a_token_that_somebody_else_signed_is_refused(env: Environment) -> None:
    host, machine = env.opened()
    forger = Issuer(env.cloud.issuer.name)
    forger.kid = env.cloud.issuer.kid
    refused(env, forger.sign(machine.claims), host, "its signature is not its cloud's")
    refused(env, env.cloud.issuer.sign({**machine.claims, "iss": "https://evil.example.com/"}), host, "another issuer")
    still_works(env, machine, host)


def test_a_true_signature_under_other_claims_is_refused(env: Environment) -> None:
    host, machine = env.opened()
    theirs = env.cloud.machine().identity.prove(AUDIENCE).value
    head, _, signature = theirs.split(".")
    body = _b64(json.dumps({**claims_of(theirs), **machine.claims}).encode())
    refused(env, f"{head}.{body}.{signature}", host, "its signature is not its cloud's")
    still_works(env, machine, host)


def test_no_signature_and_a_signature_by_the_public_key_are_refused(env: Environment) -> None:
    host, machine = env.opened()
    now = int(time.time())
    claims = {"iss": env.cloud.issuer.name, "iat": now, "nbf": now, "exp": now + 300, **machine.claims}
    refused(env, unsigned(claims), host, "identity was refused")
    public = env.cloud.issuer.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = {"alg": "HS256", "kid": env.cloud.issuer.kid}
    signed = f"{_b64(json.dumps(head).encode())}.{_b64(json.dumps(claims).encode())}"
    by_public = hmac.new(public, signed.encode(), hashlib.sha256).digest()
    refused(env, f"{signed}.{_b64(by_public)}", host, "identity was refused")
    still_works(env, machine, host)


def test_a_token_of_the_same_identity_without_its_machine_is_refused(env: Environment) -> None:
    """As somebody gets it who holds the hosts' identity, but elsewhere than on a machine that we made."""
    host, machine = env.opened()
    claims = json.loads(json.dumps(machine.claims))
    match env.cloud.name:
        case "aws":
            del claims[AWS_CLAIMS]["ec2_source_instance_arn"]
        case "azure":
            del claims["xms_az_rid"]
        case _:
            del claims["google"]
    refused(env, env.cloud.issuer.sign(claims), host, "identity was refused")
    still_works(env, machine, host)


def test_two_machines_cannot_share_a_grant_nor_one_have_two(env: Environment) -> None:
    host, machine = env.opened()
    with pytest.raises(Refused, match=rf"the grant of {host}\.1 is open for"):
        env.grants.open(host, 1, env.cloud.machine().instance, soon())
    with pytest.raises(Refused, match=rf"has a grant as {host}\.1 already"):
        env.grants.open(env.host(), 1, machine.instance, soon())
    still_works(env, machine, host)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
