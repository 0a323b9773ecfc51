"""A bench for the emulator's own tests: Azure's SDK on it, without any code of ours between."""

import time
from collections.abc import Callable
from typing import Any

from azure.core.exceptions import HttpResponseError
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.network import NetworkManagementClient

from tests.clouds.arm.emulator import GROUP, IMAGE, REGION, SUBNET, SUBSCRIPTION, Arm
from tests.clouds.arm.group import Times

KEY = "ssh-rsa " + "A" * 372
NIC = "vm1-nic"
# What is late comes when a test says so: `catch_up`.
SLOW = Times(boot=0.05, end=0.05, listed=3600, late=3600, reserved=3600)


class Bench:
    """The emulator, and clients on it."""

    def __init__(self) -> None:
        self.arm = Arm(SLOW)
        options: dict[str, Any] = {
            "credential_scopes": [f"{self.arm.endpoint}/.default"],
            "retry_total": 0,
            "polling_interval": 0.02,
            "use_env_settings": False,
        }
        credential = self.arm.ground.credential
        assert credential is not None
        self.compute = ComputeManagementClient(credential, SUBSCRIPTION, self.arm.endpoint, **options)
        self.network = NetworkManagementClient(credential, SUBSCRIPTION, self.arm.endpoint, **options)

    def put(self, name: str = "vm1", body: Any = None, **options: Any) -> Any:
        return self.compute.virtual_machines.begin_create_or_update(
            GROUP, name, body or machine(), enforce_https=False, **options
        )

    def get(self, name: str = "vm1", **options: Any) -> Any:
        return self.compute.virtual_machines.get(GROUP, name, enforce_https=False, **options)

    def delete(self, name: str = "vm1", **options: Any) -> Any:
        return self.compute.virtual_machines.begin_delete(GROUP, name, enforce_https=False, **options)

    def delete_nic(self, name: str = NIC) -> None:
        self.network.network_interfaces.begin_delete(GROUP, name, enforce_https=False).result(10)

    def nics(self) -> list[str]:
        return [str(one.name) for one in self.network.network_interfaces.list(GROUP, enforce_https=False)]

    def machines(self) -> list[str]:
        return [str(one.name) for one in self.compute.virtual_machines.list(GROUP, enforce_https=False)]

    def close(self) -> None:
        self.compute.close()
        self.network.close()
        self.arm.close()

    def held(self) -> set[str]:
        return {one.id.rpartition("/")[2] for one in self.arm.held()}


def machine(**changes: Any) -> dict[str, Any]:
    """The body of a machine, as its JSON; changes by a path with double underscores."""
    body: dict[str, Any] = {
        "location": REGION,
        "zones": ["1"],
        "tags": {"a": "b"},
        "properties": {
            "hardwareProfile": {"vmSize": "Standard_D4s_v5"},
            "storageProfile": {
                "imageReference": {"id": IMAGE},
                "osDisk": {"name": "vm1-os", "createOption": "FromImage", "deleteOption": "Delete"},
            },
            "osProfile": {
                "computerName": "vm1",
                "adminUsername": "someone",
                "customData": "aGVsbG8=",
                "linuxConfiguration": {"ssh": {"publicKeys": [{"path": "/x", "keyData": KEY}]}},
            },
            "networkProfile": {
                "networkApiVersion": "2022-11-01",
                "networkInterfaceConfigurations": [
                    {
                        "name": NIC,
                        "tags": {"a": "b"},
                        "properties": {
                            "deleteOption": "Delete",
                            "ipConfigurations": [{"name": "ip", "properties": {"subnet": {"id": SUBNET}}}],
                        },
                    }
                ],
            },
        },
    }
    for path, value in changes.items():
        *way, last = path.split("__")
        at: Any = body
        for key in way:
            at = at[int(key) if key.isdigit() else key]
        if value is None:
            del at[last]
        else:
            at[last] = value
    return body


DETACH = machine(
    properties__storageProfile__osDisk={"name": "vm1-os", "createOption": "FromImage"},
    properties__networkProfile__networkInterfaceConfigurations__0__properties__deleteOption=None,
)


def until(holds: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def code(error: HttpResponseError) -> str:
    assert error.error is not None
    return str(error.error.code)
