"""What proves which machine this is: a token that its cloud signs for it, from the metadata service of the cloud."""

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol
from urllib.parse import urlencode

from paddock.bootstrap.errors import NotYet, Refused
from paddock.bootstrap.hidden import Hidden
from paddock.bootstrap.wire import Answer, fetch

LINK_LOCAL: Final = "http://169.254.169.254"
TIMEOUT_S: Final = 5.0
_AZURE_LATER: Final = frozenset({404, 410, 429})


class Identity(Protocol):
    """A machine's own identity."""

    def prove(self, audience: str) -> Hidden:
        """A JWT that the cloud signed for this machine and this audience, minutes old at most.

        Raises NotYet while the metadata service is out of reach, Refused when it gives this machine no identity.
        """


class Gcp:
    """Google's: the identity token of the machine's service account, with the machine itself in its claims."""

    def __init__(self, metadata: str = LINK_LOCAL, timeout_s: float = TIMEOUT_S) -> None:
        self._metadata, self._timeout_s = metadata, timeout_s

    def prove(self, audience: str) -> Hidden:
        # Without `format=full` the token names the service account only, which all hosts share.
        query = urlencode({"audience": audience, "format": "full"})
        path = f"/computeMetadata/v1/instance/service-accounts/default/identity?{query}"
        answer = _get(self._metadata + path, {"Metadata-Flavor": "Google"}, self._timeout_s)
        if answer.headers.get("metadata-flavor") != "Google":
            raise NotYet("what answers as the metadata service is not Google's", field=self._metadata)
        if answer.status == 404:
            raise Refused("this machine has no service account, so it cannot prove itself", status=404)
        _ok(answer)
        return as_jwt(answer.body)


class Azure:
    """Azure's: an access token of the managed identity; for a user-assigned one, `xms_az_rid` is the machine.

    `client_id` picks the identity where a machine has several.
    """

    def __init__(self, client_id: str = "", metadata: str = LINK_LOCAL, timeout_s: float = TIMEOUT_S) -> None:
        self._client_id, self._metadata, self._timeout_s = client_id, metadata, timeout_s

    def prove(self, audience: str) -> Hidden:
        asked = {"api-version": "2018-02-01", "resource": audience}
        if self._client_id:
            asked["client_id"] = self._client_id
        url = f"{self._metadata}/metadata/identity/oauth2/token?{urlencode(asked)}"
        answer = _get(url, {"Metadata": "true"}, self._timeout_s)
        if answer.status in _AZURE_LATER:
            raise NotYet(f"the metadata service gives no token yet ({answer.status})", field=self._metadata)
        _ok(answer, "has this machine the managed identity, and is the audience an application of the tenant?")
        return as_jwt(text_in(answer.body, "access_token").encode())


def text_in(body: bytes, key: str) -> str:
    """The text of `key` in a JSON object; raises NotYet for anything else."""
    try:
        said: Any = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    value = said.get(key) if isinstance(said, dict) else None
    if not isinstance(value, str) or not value:
        raise NotYet(f"the metadata service's answer has no {key}")
    return value


def _get(url: str, headers: Mapping[str, str], timeout_s: float) -> Answer:
    return fetch(url, what="the metadata service", timeout_s=timeout_s, headers=headers)


def _ok(answer: Answer, remedy: str = "") -> None:
    if answer.status == 200:
        return
    if answer.status == 429 or answer.status >= 500:
        raise NotYet(f"the metadata service is busy ({answer.status})")
    raise Refused(
        f"the metadata service refused to say who this machine is ({answer.status})",
        status=answer.status,
        remedy=remedy,
    )


def as_jwt(body: bytes) -> Hidden:
    """A body as a JWT by its form alone: whether it is true is for the store, which has the keys."""
    try:
        text = body.decode("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    parts = text.split(".")
    safe = all(part and all(c.isalnum() or c in "-_" for c in part) for part in parts)
    if len(parts) != 3 or not safe:
        raise NotYet("the metadata service's answer is no signed token")
    return Hidden(text)
