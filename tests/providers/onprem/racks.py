"""What the on-prem provider's tests share: orders for the racks, a wait with an end, crashes, and certificates."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from providers.contract import HostOrder, HostState, Item
from providers.onprem import OnPrem
from tests.clouds.rack import LATE_S
from tests.clouds.redfish import Redfish

# More than the emulator's late machines take: a real BMC is given a minute.
SETTLE_S = LATE_S + 0.5


def order(host: str = "h1", **changes: object) -> HostOrder:
    fields: dict[str, object] = {"controller": "prod", "environment": "site", "host": host, "attempt": 1}
    fields |= {"size": Redfish.size, "zone": "rack1", "deadline": datetime(2027, 1, 1, tzinfo=UTC)}
    return HostOrder(**(fields | {"user_data": f"#cloud-config\n# {host}\n"} | changes))  # type: ignore[arg-type]


def until(condition: Callable[[], object], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come in time"
        time.sleep(0.01)


def again(provider: OnPrem) -> OnPrem:
    """The provider of the next process, after this one died."""
    return OnPrem(provider.ground)


def running(provider: OnPrem, wanted: HostOrder) -> Item:
    provider.create(wanted)
    until(lambda: (found := provider.get(wanted)) and found.state is HostState.RUNNING)
    found = provider.get(wanted)
    assert found is not None
    return found


def resets(redfish: Redfish) -> list[str]:
    return [body["ResetType"] for kind, _, body in redfish.front.bodies if kind == "POST System.Reset"]


class Crash(BaseException):
    """The process is gone: nothing after this line of it runs."""


def crashing(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, *, after: bool) -> None:
    """The next call of this method dies, before it did anything or after it did all."""
    real = getattr(owner, name)

    def dies(*arguments: Any, **named: Any) -> None:
        monkeypatch.setattr(owner, name, real)
        if after:
            real(*arguments, **named)
        raise Crash

    monkeypatch.setattr(owner, name, dies)


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder(
        subject, subject, key.public_key(), x509.random_serial_number(), now, now + timedelta(1)
    )
    built = built.add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
    signed = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(
        key, hashes.SHA256()
    )
    file = folder / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + private)
    return file
