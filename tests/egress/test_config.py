"""An operator's connection is an address and a port, nothing that could be looked up or misread."""

import pytest
from pydantic import ValidationError

from paddock.egress.config import Connection


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [("10.1.2.3:8443", ("10.1.2.3", 8443)), ("[fd00::1]:443", ("fd00::1", 443)), ("127.0.0.1:1", ("127.0.0.1", 1))],
)
def test_an_address_is_an_ip_and_a_port(address: str, endpoint: tuple[str, int]) -> None:
    assert Connection(name="git.corp.example", address=address).endpoint == endpoint


@pytest.mark.parametrize(
    "address", ["git.corp.example:443", "10.1.2.3", "10.1.2.3:0", "10.1.2.3:99999", ":443", "127.1:80", ""]
)
def test_anything_else_is_refused(address: str) -> None:
    with pytest.raises(ValidationError):
        Connection(name="git.corp.example", address=address)


@pytest.mark.parametrize(
    "name", ["GIT.corp.example", "*.corp.example", "a..b", "-a.example", "a.example.", "a" * 254, ""]
)
def test_a_name_is_exact_and_canonical(name: str) -> None:
    with pytest.raises(ValidationError):
        Connection(name=name, address="10.1.2.3:443")
