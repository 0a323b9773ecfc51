"""Addresses: every way to write or hide one that must not be dialled."""

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.egress.addresses import own_addresses, refused

METADATA = ipaddress.IPv4Address("169.254.169.254")


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450::1", "64:ff9b::808:808"]
)
def test_a_public_address_may_be_dialled(address: str) -> None:
    assert refused(address) is None


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("0.0.0.0", "this network"),
        ("0.1.2.3", "this network"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "carrier"),
        ("100.100.100.200", "metadata"),
        ("169.254.1.1", "link-local"),
        ("169.254.169.254", "metadata"),
        ("168.63.129.16", "metadata"),
        ("192.0.0.192", "metadata"),
        ("198.18.0.1", "synthetic"),
        ("198.19.255.53", "synthetic"),
        ("192.0.2.1", "documentation"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("240.0.0.1", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "zone"),
        ("fc00::1", "private"),
        ("fd00:ec2::254", "private"),
        ("fd20:ce::254", "private"),
        ("ff02::1", "multicast"),
        ("::ffff:169.254.169.254", "metadata"),
        ("::ffff:8.8.8.8", "IPv4 in IPv6"),
        ("::7f00:1", "IPv4 in IPv6"),
        ("64:ff9b::a9fe:a9fe", "NAT64: a cloud metadata"),
        ("64:ff9b::7f00:1", "NAT64: loopback"),
        ("64:ff9b:1::808:808", "outside global unicast"),
        ("2002:a9fe:a9fe::1", "6to4"),
        ("2002:808:808::1", "6to4"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo"),
        ("2001:db8::1", "documentation"),
        ("2001:10::1", "protocol assignments"),
        ("2606:4700::5efe:10.0.0.1", "ISATAP: private"),
        ("2606:4700::200:5efe:8.8.8.8", "ISATAP"),
        ("4000::1", "outside global unicast"),
        ("3fff::1", "documentation"),
        ("127.1", "not an address"),
        ("2130706433", "not an address"),
        ("0x7f000001", "not an address"),
        ("0177.0.0.1", "not an address"),
        ("0", "not an address"),
        ("[::1]", "not an address"),
        ("8.8.8.8 ", "not an address"),
        ("８.8.8.8", "not an address"),
        ("api.example.com", "not an address"),
        ("", "not an address"),
        ("1" * 10_000, "not an address"),
    ],
)
def test_this_address_is_refused_with_its_reason(address: str, why: str) -> None:
    assert why in (refused(address) or "")


@given(st.ip_addresses(v=4))
def test_no_v4_address_is_passed_that_the_standard_library_calls_local(address: ipaddress.IPv4Address) -> None:
    if refused(str(address)) is None:
        assert address.is_global
        assert not address.is_multicast


@given(st.ip_addresses(v=6))
def test_no_v6_address_is_passed_that_the_standard_library_calls_local(address: ipaddress.IPv6Address) -> None:
    if refused(str(address)) is None:
        assert address.is_global


@given(st.ip_addresses(v=4))
def test_an_address_hidden_in_nat64_is_as_good_as_the_one_inside(address: ipaddress.IPv4Address) -> None:
    hidden = str(ipaddress.IPv6Address((0x64_FF9B << 96) | int(address)))
    assert (refused(hidden) is None) is (refused(str(address)) is None)


@given(st.text(max_size=50))
def test_no_text_raises(text: str) -> None:
    assert isinstance(refused(text), str)


def test_an_address_of_this_machine_is_refused_although_it_is_public() -> None:
    assert refused("8.8.8.8", frozenset({"8.8.8.8"})) == "an address of this machine"


def test_the_machine_knows_its_own_loopback() -> None:
    found = own_addresses()
    assert "127.0.0.1" in found
    for address in found:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        assert socket.inet_ntop(family, socket.inet_pton(family, address)) == address
