"""No secret in a log, an error, a repr or an argument, on the good way and on the bad ones."""

import logging
import re
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from paddock.bootstrap.aws import Aws
from paddock.bootstrap.enrol import ByIdentity, ByJoinToken
from paddock.bootstrap.hidden import Hidden
from paddock.contracts.errors import PaddockError
from tests.bootstrap.rig import API_KEY, RECORDER, Environment, Shows, soon

# Tokens of the store, JWTs, private keys, and the keys of emulated instances.
FORMS = re.compile(r"\b(?:hv)?[sbr]\.[A-Za-z0-9_-]{20,}|eyJ[A-Za-z0-9_-]{10,}|PRIVATE KEY")


def silent(words: str, *secrets: str) -> None:
    found = [secret for secret in (RECORDER, API_KEY, *secrets) if secret and secret in words]
    assert not found
    assert not FORMS.search(words), words


def test_the_forms_are_seen() -> None:
    for text in ("s.KgK2lbVEm84dFhaFUKUAQs2G.px1RYt", "eyJhbGciOiJSUzI1NiJ9.e30.AA", "-----BEGIN PRIVATE KEY-----"):
        with pytest.raises(AssertionError):
            silent(f"log: {text}")


def test_logs_and_results_of_the_good_way(env: Environment, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    host, machine = env.opened()
    wrapped = env.wrapped(f"{host}.1")
    caplog.clear()  # what the operator's own client said of the above
    config = env.config(host)
    enrolment = env.enrolment(machine, config)
    done = enrolment.run()
    key = enrolment.config.places.key
    assert key
    grants = env.grants
    said = [grants.open(host, 1, machine.instance, soon()), grants.list(), grants.close(host, 1, "joined")]
    join = grants.join(env.host(), soon())
    shown = [done, config, enrolment, machine.identity, grants, join, ByJoinToken(Path("x")), *said]
    words = "\n".join([caplog.text, *map(repr, shown), *map(str, shown)])
    assert f"enrolled as {host}.1" in words
    silent(words, wrapped, join.value, env.token_file.read_text().strip(), key.read_text().splitlines()[1])


def test_errors_of_every_kind(env: Environment, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    host, machine = env.opened()
    env.enrolment(machine, env.config(host)).run()
    wrong = env.cloud.issuer.sign({**machine.claims, "aud": "other"})
    used, stranger = env.config(host), env.config(host, patience_s=0.3)
    join = env.grants.join(env.host(), soon())
    file = env.directory / "a-join-token"
    file.write_text(join.value)
    bad_worker = env.grants
    tries: list[Callable[[], object]] = [
        lambda: env.enrolment(machine, used).run(),
        lambda: env.enrolment(wrong, used).run(),
        lambda: env.enrolment(env.cloud.machine(), stranger).run(),
        lambda: env.enrolment(ByJoinToken(file), env.config(env.host(), 0)).run(),
        lambda: bad_worker.open(host, 1, "another", soon()),
    ]
    texts = []
    for one in tries:
        with pytest.raises(PaddockError) as caught:
            one()
        error = caught.value
        texts += [str(error), repr(error), "".join(traceback.format_exception(error)), error.info.model_dump_json()]
    silent("\n".join([*texts, caplog.text]), wrong, join.value, env.token_file.read_text().strip())


def test_reprs_of_what_holds_a_secret() -> None:
    token = "s.KgK2lbVEm84dFhaFUKUAQs2G"
    shown = [Hidden(token), Shows(token), ByIdentity(Shows(token)), Aws()]
    silent("\n".join([*map(repr, shown), *map(str, shown), f"{Hidden(token)}"]), token)


def test_no_argument_of_the_operators_commands_is_a_secret(env: Environment) -> None:
    given = env.store.arguments.read_text()
    assert "hosts/recorder" in given
    silent(given, env.store.root_token, env.token_file.read_text().strip())
