"""`Arm`: the emulated cloud with the real provider on it, and what tests may do to both."""

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

from azure.core.credentials import AccessToken

from providers.azure import Azure, AzureGround
from tests.clouds.arm.door import Answer, Door, refuse
from tests.clouds.arm.group import ADDRESS, KINDS, NIC, VM, Failure, Group, Habits, Times
from tests.clouds.arm.later import Later
from tests.clouds.arm.rules import Known
from tests.clouds.arm.server import Server
from tests.clouds.cloud import Fault, Held, Machine, Operation

SUBSCRIPTION = "5b1f0a52-6f0e-4c0d-9a55-0c5a2f1f7d11"
GROUP = "paddock-hosts"
REGION = "westeurope"
_PREFIX = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers"
SUBNET = f"{_PREFIX}/Microsoft.Network/virtualNetworks/hosts/subnets/hosts"
IMAGE = f"{_PREFIX}/Microsoft.Compute/galleries/paddock/images/host/versions/1.0.0"
OTHER_IMAGE = "Debian:debian-13:13-gen2:latest"
IDENTITY = f"{_PREFIX}/Microsoft.ManagedIdentity/userAssignedIdentities/host"
_TYPES = {kind: type for type, kind in KINDS.items()}


class Token:
    """A credential of the emulator: a token that it knows, until it expires."""

    def __init__(self, token: str) -> None:
        self.token = token

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """The same token for any scope."""
        del scopes, options
        return AccessToken(self.token, int(time.time()) + 3600)


class Arm:
    """One subscription with one resource group in one region with three zones; see Cloud for the rest.

    A `late` machine is in no list for a while. A look-up by name sees it, as Azure's do, unless `habits` say otherwise.
    A `late` list is empty, and a `late` end takes longer.
    `close` raises when an answer was given that the SDK's models do not allow.
    """

    name = "azure"
    zones: tuple[str, ...] = ("1", "2", "3")
    size = "Standard_D4s_v5"
    size_without_kvm = "Standard_B4s_v2"

    def __init__(self, times: Times | None = None, page: int = 2, **settings: Any) -> None:
        self._later = Later()
        self._group = Group(SUBSCRIPTION, GROUP, REGION, times or Times(), self._later)
        known = Known(REGION, self.zones, {SUBNET}, {IMAGE, OTHER_IMAGE})
        self._token = Token("a-token-of-the-emulator")
        self._door = Door(self._group, known, self._token.token, page)
        self._server = Server(self._door.answer)
        self._door.base = self.endpoint = self._server.endpoint
        self._planted = itertools.count(1)
        self.ground = self.ground_with(**settings)
        self.provider = Azure(self.ground)

    def ground_with(self, **changes: Any) -> AzureGround:
        """The settings of a provider for this cloud, with changes."""
        fields: dict[str, Any] = {
            "subscription": SUBSCRIPTION,
            "resource_group": GROUP,
            "region": REGION,
            "zones": self.zones,
            "subnet": SUBNET,
            "image": IMAGE,
            "identity": IDENTITY,
            "endpoint": self.endpoint,
            "credential": self._token,
        }
        return AzureGround(**(fields | changes))

    @property
    def on_boot(self) -> Callable[[Machine], None] | None:
        """Called from the emulator's thread when a machine is up."""
        return self._group.on_boot

    @on_boot.setter
    def on_boot(self, hook: Callable[[Machine], None] | None) -> None:
        self._group.on_boot = hook

    @property
    def on_end(self) -> Callable[[str], None] | None:
        """Called from the emulator's thread, with the id of a machine that was up and is gone."""
        return self._group.on_end

    @on_end.setter
    def on_end(self, hook: Callable[[str], None] | None) -> None:
        self._group.on_end = hook

    @property
    def habits(self) -> Habits:
        """What differs at Azure from day to day."""
        return self._group.habits

    def fault(self, operation: Operation, fault: Fault, times: int = 1) -> None:
        """The next `times` main requests of this operation fail so."""
        self._door.faults[operation].extend([fault] * times)

    def fail_later(self, code: str, message: str) -> None:
        """The next machine is accepted, and fails while it is made."""
        self.habits.fail_next.append(Failure(code, message))

    def refuse(self, call: str, status: int, code: str, message: str, **headers: str) -> None:
        """The next request of this call, as `networkInterfaces.LIST`, is answered so."""
        spelled = {key.replace("_", "-"): value for key, value in headers.items()}
        self._door.refusals[call].append(refuse(status, code, message, spelled))

    def answer(self, call: str, status: int, body: dict[str, Any] | None) -> None:
        """The next request of this call is answered so, and nothing is done."""
        self._door.refusals[call].append(Answer(status, body))

    def shut_down(self, name: str) -> None:
        """A machine's guest powers off; the machine stays, and is paid for."""
        found = self._group.find(VM, name)
        assert found is not None, f"there is no machine {name}"
        found.power = "stopped"

    def expire_token(self) -> None:
        """From now on the credential's token is not taken any more."""
        self._door.token = "a-newer-one"

    def calls(self) -> Mapping[str, int]:
        """How many requests came, as `virtualMachines.PUT`; a read of a collection is a LIST."""
        return dict(self._door.counted)

    def held(self) -> tuple[Held, ...]:
        """All that exists now and costs money, whoever made it."""
        return self._group.held()

    def plant(self, kind: str, tags: Mapping[str, str], name: str = "") -> str:
        """A resource that no provider of ours made; its id."""
        name = name or f"planted-{next(self._planted)}"
        about: dict[str, Any] = {"provisioningState": "Succeeded"}
        if kind == "host":
            about |= {"hardwareProfile": {"vmSize": self.size}}
        elif kind == "disk":
            about |= {"creationData": {"createOption": "Empty"}, "diskSizeGB": 32, "diskState": "Unattached"}
        return self._group.add(_TYPES[kind], name, dict(tags), about).id

    def plant_address(self, tags: Mapping[str, str], nic: str) -> str:
        """A public address that is bound to an interface, given by its name; the address's id."""
        bound = f"{self._group.id(NIC, nic)}/ipConfigurations/internal"
        about = {"provisioningState": "Succeeded", "ipConfiguration": {"id": bound}}
        return self._group.add(ADDRESS, f"planted-{next(self._planted)}", dict(tags), about).id

    def catch_up(self, *, free: bool = False) -> None:
        """Lists and look-ups show all that exists now; with `free`, no interface is reserved any more."""
        self._group.catch_up(free)

    def attach(self, kind: str, name: str, machine: str) -> None:
        """Somebody gives a disk or interface to a machine."""
        found = self._group.find(_TYPES[kind], name)
        assert found is not None, f"there is no {kind} {name}"
        self._group.attach(found, machine)

    def tag(self, kind: str, name: str, tags: Mapping[str, str]) -> None:
        """Somebody else's hand on the tags of what exists."""
        found = self._group.find(_TYPES[kind], name)
        assert found is not None, f"there is no {kind} {name}"
        found.body["tags"] = dict(tags)

    def close(self) -> None:
        """End server and clock; the port is free again."""
        self.provider.close()
        self._server.close()
        self._later.stop()
        wrong = [*self._door.wrong, *map(repr, self._later.failed)]
        assert not wrong, f"the emulator itself was wrong: {wrong}"
