"""What the guest may ask of its supervisor: a connection, a name, or to note its word."""

from paddock.egress.gateway import Gateway
from paddock.microvm.channel.transport import GuestTransport


class Guest:
    """The guest's side of the channel, answered by the egress gateway; until a policy is attached all is refused."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def connect(self, transport: GuestTransport, address: str, port: int) -> None:
        self._gateway.connect(transport, address, port)

    async def dns(self, query: bytes, tcp: bool) -> bytes | None:
        return await self._gateway.dns(query, tcp)

    def event(self, kind: int, payload: bytes) -> None:
        """The guest's word is not evidence; this version keeps none of it."""
