"""Addresses that no request of a guest may be dialled to, whatever name led there."""

import socket
from functools import lru_cache
from ipaddress import IPv4Address as IPv4
from ipaddress import IPv4Network, IPv6Network, ip_address
from ipaddress import IPv6Address as IPv6
from itertools import pairwise
from pathlib import Path


def _v4(text: str) -> IPv4Network:
    return IPv4Network(text)


def _v6(text: str) -> IPv6Network:
    return IPv6Network(text)


# IANA's special-purpose registries, and metadata services in public space. `is_global` of the standard library
# is no such check: it passes NAT64 and 6to4 forms of 169.254.169.254, and Azure's 168.63.129.16.
_METADATA_V4 = frozenset(
    IPv4(a) for a in ("169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192")
)
_REFUSED_V4 = (
    (_v4("0.0.0.0/8"), "this network"),
    (_v4("10.0.0.0/8"), "private"),
    (_v4("100.64.0.0/10"), "carrier-grade NAT"),
    (_v4("127.0.0.0/8"), "loopback"),
    (_v4("169.254.0.0/16"), "link-local"),
    (_v4("172.16.0.0/12"), "private"),
    (_v4("192.0.0.0/24"), "protocol assignments"),
    (_v4("192.0.2.0/24"), "documentation"),
    (_v4("192.31.196.0/24"), "AS112"),
    (_v4("192.52.193.0/24"), "AMT"),
    (_v4("192.88.99.0/24"), "6to4 relay"),
    (_v4("192.168.0.0/16"), "private"),
    (_v4("192.175.48.0/24"), "AS112"),
    (_v4("198.18.0.0/15"), "benchmarking, and the sandbox's synthetic addresses"),
    (_v4("198.51.100.0/24"), "documentation"),
    (_v4("203.0.113.0/24"), "documentation"),
    (_v4("224.0.0.0/4"), "multicast"),
    (_v4("240.0.0.0/4"), "reserved or broadcast"),
)
_GLOBAL_V6 = _v6("2000::/3")
_REFUSED_V6 = (
    (_v6("2001::/32"), "Teredo"),
    (_v6("2001::/23"), "protocol assignments"),
    (_v6("2001:db8::/32"), "documentation"),
    (_v6("2002::/16"), "6to4"),
    (_v6("2620:4f:8000::/48"), "AS112"),
    (_v6("3fff::/20"), "documentation"),
)
_NAT64 = _v6("64:ff9b::/96")
_LINK_V6 = ((_v6("fe80::/10"), "link-local"), (_v6("fc00::/7"), "private"), (_v6("ff00::/8"), "multicast"))
_ISATAP = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")


def refused(address: str, own: frozenset[str] = frozenset()) -> str | None:
    """Why this address may not be dialled, or None; text that is no canonical address is refused too.

    `own` holds addresses of this machine in canonical form: they are refused although they may be public.
    """
    if address in own:
        return "an address of this machine"
    return _refused(address) if len(address) <= 45 else "not an address"


@lru_cache(maxsize=4096)
def _refused(address: str) -> str | None:
    try:
        ip = ip_address(address)
    except ValueError:
        return "not an address"
    if isinstance(ip, IPv4):
        return _refused_v4(ip)
    if ip.scope_id is not None:
        return "an address with a zone"
    return _refused_v6(ip)


def _refused_v4(ip: IPv4) -> str | None:
    if ip in _METADATA_V4:
        return "a cloud metadata service"
    return next((why for network, why in _REFUSED_V4 if ip in network), None)


def _refused_v6(ip: IPv6) -> str | None:
    packed = ip.packed
    if ip == IPv6(1):
        return "loopback"
    if not int(ip):
        return "unspecified"
    if packed[:10] == bytes(10) and packed[10:12] == b"\xff\xff":
        return f"IPv4 in IPv6: {_refused_v4(IPv4(packed[12:])) or 'mapped'}"
    if packed[:12] == bytes(12):
        return "IPv4 in IPv6: compatible"
    if ip in _NAT64:
        # The one translation that a host without IPv4 really uses: as good or bad as the address inside.
        inner = _refused_v4(IPv4(packed[12:]))
        return f"NAT64: {inner}" if inner else None
    for network, why in _LINK_V6:
        if ip in network:
            return why
    if ip not in _GLOBAL_V6:
        return "outside global unicast"
    why_not = next((why for network, why in _REFUSED_V6 if ip in network), None)
    if why_not:
        return why_not
    if packed[8:12] in _ISATAP:
        return f"ISATAP: {_refused_v4(IPv4(packed[12:])) or 'tunnel'}"
    return None


def own_addresses() -> frozenset[str]:
    """Addresses of this machine's interfaces in canonical form, by the kernel's tables; empty where there are none."""
    found: set[str] = set()
    try:
        trie = Path("/proc/net/fib_trie").read_text(encoding="ascii").splitlines()
    except OSError:
        trie = []
    for line, after in pairwise(trie):
        if after.strip() == "/32 host LOCAL" and "-- " in line:
            found.add(line.rpartition(" ")[2])
    try:
        interfaces = Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines()
    except OSError:
        interfaces = []
    for line in interfaces:
        found.add(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0])))
    return frozenset(found)
