"""The identity of a connection: all its parts agree, or there is none."""

import dataclasses

import pytest

from paddock.egress.flow import Flow, FlowMismatch, Transport, captured

FLOW = captured("sb-1", "api.example.com", 443)


def test_a_flow_gathers_what_is_known_of_one_connection() -> None:
    flow = FLOW.with_sni("API.example.com").with_host("api.example.com.", None).with_addresses(("8.8.8.8",))
    assert flow == Flow(
        "sb-1", Transport.TLS, "api.example.com", 443, "api.example.com", "api.example.com", ("8.8.8.8",)
    )
    assert flow.tls
    assert flow.authority == "api.example.com"


def test_a_flow_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FLOW.name = "evil.example.com"  # type: ignore[misc]


@pytest.mark.parametrize("sni", [None, "evil.example.com", "example.com", "10.0.0.1", "", "api.example.com.evil.org"])
def test_an_sni_that_names_another_server_or_none_is_a_mismatch(sni: str | None) -> None:
    with pytest.raises(FlowMismatch) as caught:
        FLOW.with_sni(sni)
    assert caught.value.part == "sni"
    assert not sni or sni not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["evil.example.com", "api.example.com@evil.org", "api.example.com:443", "", "127.0.0.1"]
)
def test_a_host_that_is_another_name_is_a_mismatch(host: str) -> None:
    with pytest.raises(FlowMismatch) as caught:
        FLOW.with_sni("api.example.com").with_host(host, None)
    assert caught.value.part == "host"


def test_a_hosts_port_is_the_connections_or_the_schemes_own() -> None:
    tls = FLOW.with_sni("api.example.com")
    assert tls.with_host("api.example.com", 443).host == "api.example.com"
    for flow, port in ((tls, 8443), (tls, 80), (FLOW, None), (captured("s", "api.example.com", 8443), None)):
        with pytest.raises(FlowMismatch, match="port"):
            flow.with_host("api.example.com", port)
    assert captured("s", "api.example.com", 80).with_host("api.example.com", None).authority == "api.example.com"
    assert captured("s", "api.example.com", 8443).authority == "api.example.com:8443"


def test_one_refused_address_condemns_all_unless_the_operator_named_them() -> None:
    for addresses in ((), ("127.0.0.1",), ("8.8.8.8", "10.0.0.1"), ("64:ff9b::a9fe:a9fe",)):
        with pytest.raises(FlowMismatch, match="address"):
            FLOW.with_addresses(addresses)
    assert FLOW.with_addresses(("10.1.2.3",), operator=True).pinned_addresses == ("10.1.2.3",)


@pytest.mark.parametrize(
    ("name", "port"), [("API.example.com", 443), ("10.0.0.1", 443), ("", 1), ("a.b", 0), ("a.b", 65536)]
)
def test_a_flow_begins_only_with_a_canonical_name_and_a_real_port(name: str, port: int) -> None:
    with pytest.raises(FlowMismatch):
        captured("sb-1", name, port)
