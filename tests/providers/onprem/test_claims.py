"""Claims: one machine for one order, also for many at once; fencing numbers; what a dead process leaves."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from providers.contract import ErrorClass, ProviderError
from providers.onprem.claims import Claim, Claims, Stale, State, Wanted

MACHINES = tuple((f"m{number}", "rack1") for number in range(1, 13))


def wanted(token: str | None = None, **changes: Any) -> Wanted:
    given = Wanted(token or str(uuid4()), "ph-x-1", "s", "rack1", "", "#cloud-config\n", {"paddock-host": "h1"})
    return replace(given, **changes)


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    return Claims(tmp_path / "claims.db")


def test_a_claim_keeps_all_that_was_asked(claims: Claims) -> None:
    asked = wanted(image="debian", user_data="#cloud-config\nü\n")
    claim = claims.claim(MACHINES, asked)
    assert (claim.id, claim.state, claim.wanted) == ("m1@1", State.CLAIMED, asked)
    assert (claims.by_token(asked.token), claims.of("m1"), claims.held()) == (claim, claim, (claim,))


def test_an_order_has_one_machine_however_often(claims: Claims) -> None:
    asked = wanted()
    assert claims.claim(MACHINES, asked) == claims.claim(MACHINES[5:], asked)
    assert len(claims.held()) == 1


def test_an_order_with_other_words_is_a_conflict(claims: Claims) -> None:
    asked = wanted()
    claims.claim(MACHINES, asked)
    with pytest.raises(ProviderError, match="with other words") as wrong:
        claims.claim(MACHINES, replace(asked, user_data="other"))
    assert wrong.value.kind is ErrorClass.CONFLICT


def test_an_ended_order_gets_no_second_machine(claims: Claims) -> None:
    asked = wanted()
    claims.release(claims.claim(MACHINES, asked))
    with pytest.raises(ProviderError, match="a new machine is a new attempt"):
        claims.claim(MACHINES, asked)
    assert claims.held() == ()


def test_none_free_is_capacity(claims: Claims) -> None:
    for _ in range(2):
        claims.claim(MACHINES[:2], wanted())
    with pytest.raises(ProviderError) as wrong:
        claims.claim(MACHINES[:2], wanted())
    assert wrong.value.kind is ErrorClass.CAPACITY


def test_the_machine_that_rested_longest_is_next(tmp_path: Path) -> None:
    now = iter(range(1000, 2000))
    claims = Claims(tmp_path / "claims.db", clock=lambda: float(next(now)))
    for expected in ("m1", "m2", "m3", "m1"):
        claim = claims.claim(MACHINES[:3], wanted())
        assert claim.machine == expected
        claims.release(claim)


def test_a_number_rises_with_each_claim_and_the_old_one_does_nothing(claims: Claims) -> None:
    old = claims.claim(MACHINES[:1], wanted())
    claims.release(old)
    new = claims.claim(MACHINES[:1], wanted())
    assert (old.fencing, new.fencing) == (1, 2)
    deeds: list[Callable[[], object]] = [
        lambda: claims.release(old),
        lambda: claims.change(old, state=State.POWERING),
        lambda: claims.acting(old, 0).__enter__(),
    ]
    for deed in deeds:
        with pytest.raises(Stale) as wrong:
            deed()
        assert wrong.value.kind is ErrorClass.CONFLICT
    assert claims.of("m1") == new


def test_a_change_by_what_was_is_refused(claims: Claims) -> None:
    seen = claims.claim(MACHINES, wanted())
    claims.change(seen, state=State.POWERING)
    with pytest.raises(Stale):
        claims.change(seen, state=State.ENDING)
    with pytest.raises(Stale):
        claims.release(seen)


def test_threads_at_once_get_different_machines_and_one_order_one(claims: Claims) -> None:
    orders = [wanted() for _ in range(6)] * 3
    start = threading.Barrier(len(orders))

    def take(asked: Wanted) -> Claim:
        start.wait()
        return claims.claim(MACHINES, asked)

    with ThreadPoolExecutor(len(orders)) as pool:
        taken = list(pool.map(take, orders))
    assert len({one.machine for one in taken}) == 6
    assert all(one.wanted == asked for one, asked in zip(taken, orders, strict=True))


def child(claims: Claims, program: str, *arguments: str) -> "subprocess.Popen[str]":
    head = "import sys\nfrom pathlib import Path\nfrom providers.onprem.claims import Claims, State, Wanted\n"
    head += "claims = Claims(Path(sys.argv[1]))\n"
    argv = [sys.executable, "-c", head + program, str(claims.file), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, cwd=Path(__file__).parents[3])


def test_processes_at_once_get_different_machines(claims: Claims) -> None:
    program = (
        "print('ready', flush=True); sys.stdin.readline()\n"
        "machines = [(f'm{n}', 'rack1') for n in range(1, 13)]\n"
        "for n in range(6):\n"
        "    print(claims.claim(machines, Wanted(f'{sys.argv[2]}-{n}', 'n', 's', 'z', '', '', {})).id)\n"
    )
    children = [child(claims, program, who) for who in ("a", "b")]
    for one in children:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in children:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    taken = [one.communicate(timeout=60)[0].split() for one in children]
    assert [len(one) for one in taken] == [6, 6]
    assert sorted(taken[0] + taken[1]) == sorted(f"{name}@1" for name, _ in MACHINES)


def test_a_killed_process_gives_up_its_machine_to_the_next_call(claims: Claims) -> None:
    claim = claims.claim(MACHINES, wanted())
    program = (
        "import time\n"
        "with claims.acting(claims.of(sys.argv[2]), 0) as now:\n"
        "    claims.change(now, state=State.POWERING); print('in', flush=True); sys.stdin.readline()\n"
    )
    one = child(claims, program, claim.machine)
    try:
        assert one.stdout is not None
        assert one.stdout.readline() == "in\n"
        with pytest.raises(ProviderError, match="another call is at work") as wrong, claims.acting(claim, 0.1):
            pass
        assert wrong.value.kind is ErrorClass.TRANSIENT
    finally:
        os.kill(one.pid, signal.SIGKILL)
        one.communicate(timeout=30)
    with claims.acting(claim, 5) as now:
        assert now.state is State.POWERING


def test_only_one_at_a_time_acts_on_a_machine(claims: Claims) -> None:
    claim = claims.claim(MACHINES, wanted())
    inside, most = [0], [0]

    def act() -> None:
        with claims.acting(claim, 30) as now:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            claims.change(now, why=f"{now.why}x")
            inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(act) for _ in range(24)]:
            done.result()
    assert most == [1]
    left = claims.of("m1")
    assert left is not None
    assert left.why == "x" * 24


def test_only_its_user_may_read_the_claims(claims: Claims) -> None:
    claims.claim(MACHINES, wanted())
    assert claims.file.stat().st_mode & 0o777 == 0o600


def test_claims_that_cannot_be_read_are_refused_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "claims.db"
    file.write_bytes(b"not a database at all, and long enough to be looked at" * 20)
    with pytest.raises(ProviderError, match=r"claims\.db cannot be read") as wrong:
        Claims(file)
    assert wrong.value.kind is ErrorClass.INVALID
    assert file.read_bytes().startswith(b"not a database")


def test_a_row_that_others_wrote_is_refused_in_words(claims: Claims) -> None:
    claims.claim(MACHINES, wanted())
    base = sqlite3.connect(claims.file)
    base.execute("UPDATE claims SET wanted = 'x'")
    base.commit()
    base.close()
    with pytest.raises(ProviderError, match="cannot be read"):
        claims.held()


def test_a_locked_base_is_tried_again_later(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("providers.onprem.claims._BUSY_S", 0.05)
    base = sqlite3.connect(claims.file, isolation_level=None)
    base.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ProviderError, match="locked") as wrong:
        claims.claim(MACHINES, wanted())
    base.close()
    assert wrong.value.again
    claims.claim(MACHINES, wanted())


class ClaimsAsAModel(RuleBasedStateMachine):
    """Against a plain model: who holds what, numbers that only rise, and old claims that do nothing."""

    folder: Path
    number = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).number += 1
        self.claims = Claims(self.folder / f"{self.number}.db")
        self.now: dict[str, Claim] = {}
        self.old: list[Claim] = []
        self.ended: set[str] = set()
        self.last = dict.fromkeys((name for name, _ in MACHINES), 0)

    @rule(order=st.integers(1, 8), fit=st.sets(st.integers(0, 3), min_size=1))
    def claim(self, order: int, fit: set[int]) -> None:
        machines = [MACHINES[index] for index in sorted(fit)]
        asked = wanted(str(UUID(int=order)))
        try:
            got = self.claims.claim(machines, asked)
        except ProviderError as wrong:
            if wrong.kind is ErrorClass.CONFLICT:
                assert asked.token in self.ended
            else:
                assert wrong.kind is ErrorClass.CAPACITY
                assert all(name in self.now for name, _ in machines)
            return
        assert asked.token not in self.ended
        mine = [one for one in self.now.values() if one.wanted.token == asked.token]
        if mine:
            assert got == mine[0]
        else:
            assert got.machine in {name for name, _ in machines} - self.now.keys()
            assert got.fencing == self.last[got.machine] + 1
            self.now[got.machine], self.last[got.machine] = got, got.fencing

    @rule(index=st.integers(0, 3), state=st.sampled_from([State.POWERING, State.ON, State.ENDING, State.WIPING]))
    def change(self, index: int, state: State) -> None:
        name = MACHINES[index][0]
        if name in self.now:
            was, self.now[name] = self.now[name], self.claims.change(self.now[name], state=state)
            if was.state is not state:
                self.old.append(was)

    @rule(index=st.integers(0, 3), ended=st.booleans())
    def release(self, index: int, ended: bool) -> None:
        claim = self.now.pop(MACHINES[index][0], None)
        if claim is not None:
            self.claims.release(claim, ended=ended)
            self.old.append(claim)
            if ended:
                self.ended.add(claim.wanted.token)

    @rule(data=st.data())
    def an_old_one_does_nothing(self, data: st.DataObject) -> None:
        if self.old:
            old = data.draw(st.sampled_from(self.old))
            now = self.now.get(old.machine)
            if now is None or (now.fencing, now.state) != (old.fencing, old.state):
                with pytest.raises(Stale):
                    self.claims.change(old, state=State.ENDING)
                with pytest.raises(Stale):
                    self.claims.release(old)

    @invariant()
    def the_same(self) -> None:
        assert {one.machine: one for one in self.claims.held()} == self.now


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    ClaimsAsAModel.folder = tmp_path_factory.mktemp("claims")


TestClaimsAsAModel = ClaimsAsAModel.TestCase
TestClaimsAsAModel.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
