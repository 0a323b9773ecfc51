"""What an operator, and never a policy's author, says about reaching servers."""

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from paddock.contracts.base import Strict

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
HostName = Annotated[str, StringConstraints(pattern=rf"^({_LABEL}\.)*{_LABEL}$", max_length=253)]


class Connection(Strict):
    """An internal name and where it really is: the only way to a private or loopback address.

    `address` is "ip:port" ("[ip]:port" for IPv6); with `ca`, only that certificate authority is trusted for the name.
    """

    name: HostName
    port: int = Field(443, ge=1, le=65535)
    address: str = Field(max_length=64)
    ca: Path | None = None
    clear_text_secrets: bool = False

    @field_validator("address")
    @classmethod
    def _ip_and_port(cls, address: str) -> str:
        host, _, port = address.rpartition(":")
        try:
            ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
            fine = 0 < int(port) < 65536
        except ValueError:
            fine = False
        if not fine:
            raise ValueError('an address is "ip:port", with the ip in [] when it is IPv6')
        return address

    @property
    def endpoint(self) -> tuple[str, int]:
        """IP address and port to dial."""
        host, _, port = self.address.rpartition(":")
        return host.removeprefix("[").removesuffix("]"), int(port)
