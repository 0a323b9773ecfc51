"""What a look at a machine's power means for its claim: pure, so that every case can be tried."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from providers.contract import HostState
from providers.onprem.claims import Claim, State


class Power(StrEnum):
    """A BMC's answer; `changing` is neither on nor off yet."""

    ON = "on"
    OFF = "off"
    CHANGING = "changing"


class Step(StrEnum):
    """What is to be done next."""

    NONE = "none"
    OFF = "off"
    WIPE = "wipe"
    FREE = "free"


@dataclass(frozen=True, slots=True)
class Look:
    """One answer of a BMC: `reset_at` is its own word for the machine's last reset, empty where it keeps none."""

    power: Power
    reset_at: str = ""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a BMC may take, in seconds.

    A machine that was asked to turn on must be on within `boot_s`. At the end of one that was never seen on, `off` is
    not believed for `settle_s`, as its BMC may not have begun; so long, too, a BMC has time for an `off` it accepted.
    """

    settle_s: float
    boot_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The claim's changed fields, the next step, and how the machine is shown until then."""

    changes: Mapping[str, Any]
    step: Step
    shown: HostState
    why: str = ""


def judge(claim: Claim, look: Look, now: float, pace: Pace, wipes: bool) -> Verdict:
    """What `look` says about a claim of which a BMC was asked something. Nothing is decided for `claimed` and `free`.

    `wipes` says that a machine which was on is booted into its wipe before it is free.
    """
    match claim.state:
        case State.POWERING | State.ON:
            return _running(claim, look, now, pace)
        case State.ENDING:
            return _ending(claim, look, now, pace, wipes)
        case State.WIPING:
            return _wiping(claim, look, now, pace)
        case _:
            return Verdict({}, Step.NONE, HostState.PENDING, claim.why)


def _running(claim: Claim, look: Look, now: float, pace: Pace) -> Verdict:
    if look.power is Power.ON:
        why = claim.why
        # A BMC may write down our own reset a while after the machine is on.
        ours = _within(claim.asked_at, pace.settle_s, now)
        if claim.reset_at and look.reset_at and look.reset_at != claim.reset_at and not ours:
            why = f"it was reset at {look.reset_at}, and not by Paddock"
        changes = {"state": State.ON, "seen_on": True, "reset_at": look.reset_at or claim.reset_at, "why": why}
        return Verdict(changes, Step.NONE, HostState.RUNNING, why)
    if look.power is Power.OFF and claim.seen_on:
        why = "it was turned off, and not by Paddock"
        return Verdict({"why": why}, Step.NONE, HostState.DELETING, why)
    if look.power is Power.OFF and not _within(claim.asked_at, pace.boot_s, now):
        return Verdict({}, Step.NONE, HostState.DELETING, f"it did not turn on within {pace.boot_s:g} s")
    return Verdict({}, Step.NONE, HostState.PENDING, claim.why)


def _ending(claim: Claim, look: Look, now: float, pace: Pace, wipes: bool) -> Verdict:
    asked = _within(claim.off_at, pace.settle_s, now)
    if look.power is Power.ON:
        return Verdict({"seen_on": True}, Step.NONE if asked else Step.OFF, HostState.DELETING, claim.why)
    if look.power is Power.OFF and (claim.seen_on or not _within(claim.asked_at, pace.settle_s, now)):
        return Verdict({}, Step.WIPE if wipes else Step.FREE, HostState.DELETING, claim.why)
    return Verdict({}, Step.NONE if asked else Step.OFF, HostState.DELETING, claim.why)


def _wiping(claim: Claim, look: Look, now: float, pace: Pace) -> Verdict:
    if look.power is not Power.OFF:
        seen = {"seen_on": True} if look.power is Power.ON else {}
        return Verdict(seen, Step.NONE, HostState.DELETING, "it is being wiped")
    if claim.seen_on:
        return Verdict({}, Step.FREE, HostState.DELETING)
    if _within(claim.asked_at, pace.boot_s, now):
        return Verdict({}, Step.NONE, HostState.DELETING, "it is being wiped")
    return Verdict({}, Step.WIPE, HostState.DELETING, "its wipe has yet to begin")


def _within(since: float | None, seconds: float, now: float) -> bool:
    """A clock that went back ends the wait instead of prolonging it."""
    return since is not None and 0 <= now - since < seconds
