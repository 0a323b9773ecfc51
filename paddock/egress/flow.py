"""The one identity of a connection, which policy, secrets, dialling and audit all read: none can be led elsewhere.

The name comes from the synthetic address that we handed out; SNI, Host and the addresses are added as they become
known, and each must agree. Nothing decides by what a guest merely says about itself.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from paddock.egress.addresses import refused
from paddock.policy.hosts import canonical


class Transport(StrEnum):
    """What the guest speaks on the captured connection."""

    TCP = "tcp"
    TLS = "tls"


class FlowMismatch(Exception):
    """Two parts of a flow name different targets; `part` says which disagreed, the text never repeats guest bytes."""

    def __init__(self, part: str, message: str) -> None:
        super().__init__(message)
        self.part = part


@dataclass(frozen=True, slots=True)
class Flow:
    """Who connects to what: `name` is canonical, `pinned_addresses` are checked and are the only ones dialled."""

    sandbox: str
    transport: Transport
    name: str
    port: int
    sni: str | None = None
    host: str | None = None
    pinned_addresses: tuple[str, ...] = ()

    @property
    def tls(self) -> bool:
        """True when the guest's side is TLS."""
        return self.transport is Transport.TLS

    @property
    def authority(self) -> str:
        """The Host that a request of this flow carries: the name, with the port unless it is the scheme's own."""
        return self.name if self.port == (443 if self.tls else 80) else f"{self.name}:{self.port}"

    def with_sni(self, sni: str | None) -> "Flow":
        """This flow as TLS. Raises FlowMismatch without an SNI or with one that is not the flow's name."""
        if sni is None:
            raise FlowMismatch("sni", "the TLS hello names no server")
        if canonical(sni) != self.name:
            raise FlowMismatch("sni", "the TLS hello names another server than the one connected to")
        return replace(self, transport=Transport.TLS, sni=self.name)

    def with_host(self, host: str, port: int | None) -> "Flow":
        """This flow with a request's Host (port None: the scheme's own). Raises FlowMismatch for another target."""
        if canonical(host) != self.name:
            raise FlowMismatch("host", "Host is not the name that this connection was made to")
        if (port if port is not None else (443 if self.tls else 80)) != self.port:
            raise FlowMismatch("port", "Host holds another port than the one connected to")
        return replace(self, host=self.name)

    def with_addresses(self, addresses: tuple[str, ...], *, operator: bool = False) -> "Flow":
        """This flow pinned to checked addresses; one refused address condemns them all.

        `operator`: the addresses are the operator's own mapping, the only way to a private one. Raises FlowMismatch.
        """
        if not addresses:
            raise FlowMismatch("address", "the name leads to no address")
        if not operator and any(refused(address) for address in addresses):
            raise FlowMismatch("address", "the name leads to an address that is never connected to")
        return replace(self, pinned_addresses=addresses)


def captured(sandbox: str, name: str, port: int) -> Flow:
    """The flow of a connection to a synthetic address of `name`. Raises FlowMismatch for a bad target."""
    if canonical(name) != name:
        raise FlowMismatch("name", "not a canonical host name")
    if not 0 < port < 65536:
        raise FlowMismatch("port", "no such port")
    return Flow(sandbox, Transport.TCP, name, port)
