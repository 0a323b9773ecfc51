"""The methods of the API that the emulator of Google serves, by their ids in the discovery document."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.clouds.gce_rules import PROJECT, Refusal, invalid, not_found
from tests.clouds.gce_world import ROOT, Body, Failing, World, scopes

LARGEST_PAGE = 500
LABEL_TERM = re.compile(r'\(?labels\.([a-z][-_a-z0-9]*)\s*=\s*"([-_a-z0-9]*)"\)?')
TARGET_TERM = re.compile(r"""targetLink eq (["']?)(.*)\1""")


@dataclass(slots=True)
class Trouble:
    """What a request meets beside the world: a creation that fails in its operation, or what reads do not see."""

    failing: Failing | None = None
    late: bool = False


@dataclass(slots=True)
class Api:
    """Answers methods by their discovery ids. `page` limits every page; scopes in `unreachable` cannot be read, and
    the value says how an answer tells: by `warning` or by `unreachables`."""

    world: World
    page: int
    late_s: float
    unreachable: dict[str, str] = field(default_factory=dict)

    def answer(self, method: str, path: Mapping[str, str], query: Mapping[str, str], body: Body, met: Trouble) -> Any:
        """The answer's body, None for an empty one. Raises Refusal."""
        if path["project"] != PROJECT:
            raise not_found(f"projects/{path['project']}")
        if "zone" in path and path["zone"] not in self.world.project.zones:
            raise invalid("zone", path["zone"], "Unknown zone.")
        place = path.get("zone") or path.get("region") or "global"
        match method:
            case "compute.instances.insert":
                failing, late_s = met.failing, self.late_s if met.late else 0.0
                return self.world.insert(place, body, query.get("requestId", ""), failing, late_s)
            case "compute.instances.get":
                return self._vm(place, path["instance"], met)
            case "compute.instances.delete":
                return self.world.delete(place, path["instance"], late=met.late)
            case "compute.disks.get":
                return self._found(self.world.disks, place, "disks", path["disk"])
            case "compute.disks.delete":
                return self.world.drop(self.world.disks, place, "disks", path["disk"])
            case "compute.addresses.delete" | "compute.globalAddresses.delete":
                return self.world.drop(self.world.addresses, place, "addresses", path["address"])
            case "compute.zoneOperations.get":
                return self._found(self.world.operations, place, "operations", path["operation"])
            case "compute.zoneOperations.list":
                return self._operations(place, query)
            case "compute.zoneOperations.delete":
                return self._forget(place, path["operation"])
            case (
                "compute.instances.aggregatedList" | "compute.disks.aggregatedList" | "compute.addresses.aggregatedList"
            ):
                return self._aggregated(method.split(".")[1], query, met)
        raise Refusal(501, "notImplemented", f"{method} is not emulated")

    def _vm(self, zone: str, name: str, met: Trouble) -> Body:
        vm = self.world.vms.get((zone, name))
        if vm is None or not vm.shown or met.late:
            raise not_found(f"projects/{PROJECT}/zones/{zone}/instances/{name}")
        return vm.body

    def _found(self, there: Mapping[tuple[str, str], Body], zone: str, kind: str, name: str) -> Body:
        if (zone, name) not in there:
            raise not_found(f"projects/{PROJECT}/zones/{zone}/{kind}/{name}")
        return there[zone, name]

    def _forget(self, zone: str, name: str) -> None:
        operation = self._found(self.world.operations, zone, "operations", name)
        if operation["status"] != "DONE":
            raise Refusal(400, "resourceNotReady", f"The resource '{operation['selfLink']}' is not ready")
        del self.world.operations[zone, name]

    def _operations(self, zone: str, query: Mapping[str, str]) -> Body:
        fits = TARGET_TERM.fullmatch(query.get("filter", 'targetLink eq ".*"'))
        if fits is None:
            raise invalid("filter", query["filter"], "Invalid list filter expression.")
        wanted = re.compile(fits[2])
        found = [
            one
            for (where, _), one in self.world.operations.items()
            if where == zone and wanted.fullmatch(one["targetLink"])
        ]
        page, rest = self._page(found, query)
        link = f"{ROOT}/zones/{zone}/operations"
        return {"kind": "compute#operationList", "id": link, "selfLink": link, "items": page} | rest

    def _aggregated(self, kind: str, query: Mapping[str, str], met: Trouble) -> Body:
        """Things in the order of their making, so that one zone comes on several pages."""
        wanted = _labels(query.get("filter", ""))
        found = [
            (scope, one)
            for scope, one in self._all(kind)
            if not met.late
            and scope not in self.unreachable
            and all(one["labels"].get(key) == value for key, value in wanted.items())
        ]
        page, rest = self._page(found, query)
        items: dict[str, Body] = {scope: {} for scope in scopes(self.world.project, kind)}
        for scope, one in page:
            items[scope].setdefault(kind, []).append(one)
        for scope, within in items.items():
            if self.unreachable.get(scope) == "warning":
                within["warning"] = _warning("UNREACHABLE", scope, "The scope cannot be reached.")
            elif not within:
                within["warning"] = _warning("NO_RESULTS_ON_PAGE", scope, f"No results for the scope '{scope}'.")
        link = f"{ROOT}/aggregated/{kind}"
        singular = {"instances": "instance", "disks": "disk", "addresses": "address"}[kind]
        answer = {"kind": f"compute#{singular}AggregatedList", "id": link, "selfLink": link, "items": items} | rest
        unread = [scope for scope, how in self.unreachable.items() if how == "unreachables" and scope in items]
        return answer | ({"unreachables": unread} if unread else {})

    def _all(self, kind: str) -> list[tuple[str, Body]]:
        if kind == "instances":
            return [(f"zones/{vm.zone}", vm.body) for vm in self.world.vms.values() if vm.shown]
        if kind == "disks":
            return [(f"zones/{zone}", one) for (zone, _), one in self.world.disks.items()]
        places = self.world.addresses.items()
        return [("global" if place == "global" else f"regions/{place}", one) for (place, _), one in places]

    def _page(self, found: list[Any], query: Mapping[str, str]) -> tuple[list[Any], Body]:
        size = min(int(query.get("maxResults", LARGEST_PAGE)), self.page)
        token = query.get("pageToken", "")
        try:
            start = int(base64.urlsafe_b64decode(token)) if token else 0
        except ValueError:
            raise invalid("pageToken", token, "The page token is not one of this list.") from None
        end = start + size
        follows = {"nextPageToken": base64.urlsafe_b64encode(str(end).encode()).decode()} if end < len(found) else {}
        return found[start:end], follows


def _labels(expression: str) -> dict[str, str]:
    """The labels that a filter wants; only what Google documents for labels is understood."""
    if not expression:
        return {}
    terms = re.split(r"\s+AND\s+|(?<=\))\s*(?=\()", expression)
    fits = [LABEL_TERM.fullmatch(term) for term in terms]
    if not all(fits):
        raise invalid("filter", expression, "Invalid list filter expression.")
    return {found[1]: found[2] for found in fits if found}


def _warning(code: str, scope: str, text: str) -> Body:
    return {"code": code, "message": text, "data": [{"key": "scope", "value": scope}]}
