"""Attaching a policy: a fence whose self-test fails is closed again, and no task may start behind it."""

import contextlib
from types import SimpleNamespace
from unittest.mock import AsyncMock, MagicMock

import pytest

from paddock.contracts.errors import ErrorKind, PaddockError
from paddock.policy.compile import deny_all
from paddock.supervisor import main


async def test_a_fence_that_fails_its_self_test_is_closed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = MagicMock(digest="sha256:wide", secret_refs=frozenset(), flat=SimpleNamespace(rules=()))
    monkeypatch.setattr(main, "open_signed", lambda *_: SimpleNamespace(compiled=policy, not_after=None))
    broken = PaddockError(ErrorKind.FENCE_FAILED, "a raw address was let through")
    monkeypatch.setattr(main.selftest, "prove_fence", AsyncMock(side_effect=broken))
    box = object.__new__(main.Supervisor)
    box.sandbox_id, box._digest = "sb-" + "0" * 20, ""
    box.args = MagicMock()
    box.audit = MagicMock(record=AsyncMock())
    box.gateway, box.link, box.secrets = MagicMock(), MagicMock(), MagicMock()
    box.idle = MagicMock(awake=contextlib.nullcontext)
    with pytest.raises(PaddockError, match="raw address"):
        await box.attach("signed")
    assert box.gateway.apply.call_args_list[-1].args == (deny_all(),)
    assert box._digest == ""
