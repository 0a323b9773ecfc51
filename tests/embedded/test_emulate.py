"""Which emulated clouds `paddock up --emulate` starts, and the words for another one."""

import pytest

from paddock.contracts.errors import PaddockError
from paddock.embedded import emulate


@pytest.mark.parametrize(
    ("words", "clouds"), [("", ()), ("aws", ("aws",)), (" gcp , aws,gcp", ("gcp", "aws")), (",,", ())]
)
def test_a_list_of_clouds(words: str, clouds: tuple[str, ...]) -> None:
    assert emulate.chosen(words) == clouds


def test_another_cloud_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(PaddockError, match="onprem"):
        emulate.chosen("aws,ibm")


def test_without_a_clone_it_says_where_the_emulators_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulate, "EMULATOR", "nowhere_at_all.serve")
    with pytest.raises(PaddockError, match="clone"):
        emulate.chosen("aws")
