"""Which provider an environment has: made from its settings, with the credentials that only its worker holds.

An SDK is imported here when its provider is asked for, and no sooner: some take seconds and a hundred MiB.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from paddock.contracts.ground import Choice
from providers.contract import Blame, ErrorClass, HostProvider, ProviderError
from providers.joined import Joined

# For an emulator of Azure on loopback, which takes any bearer token that it was started with.
EMULATED_AZURE_TOKEN = "PADDOCK_EMULATED_AZURE_TOKEN"


def provider(kind: str, settings: Mapping[str, Any]) -> HostProvider:
    """The provider of this kind. Raises ProviderError: invalid settings, or credentials that are not there."""
    make = _KINDS.get(kind)
    if make is None:
        raise _wrong(f"provider {kind!r} is not known; one of {', '.join(_KINDS)} is wanted", "kind")
    return make(settings)


def check_choices(kind: str, settings: Mapping[str, Any], choices: Sequence[Choice]) -> None:
    """Refuse a size or zone that this ground cannot have, as far as that can be told without asking a cloud.

    Raises ProviderError (invalid) that names the choice.
    """
    check = _CHECKS.get(kind)
    if check is None:
        return  # machines join by themselves: nothing is ordered
    for choice in choices:
        try:
            check(settings, choice)
        except ProviderError as wrong:
            raise ProviderError(wrong.kind, f"({choice}): {wrong}", code=wrong.code, blame=wrong.blame) from None


def _check_aws(settings: Mapping[str, Any], choice: Choice) -> None:
    from providers.aws import AwsGround

    _ground(AwsGround, settings).to_create(choice.zone)


def _check_azure(settings: Mapping[str, Any], choice: Choice) -> None:
    from providers.azure import AzureGround, sizes

    ground = _ground(AzureGround, settings)
    sizes.find(choice.size, ground.region, ground.zones)
    _one_of("zone", choice.zone, ground.zones or ("",))


def _check_gcp(settings: Mapping[str, Any], choice: Choice) -> None:
    from providers.gcp import GcpGround, sizes

    sizes.shape(choice.size)
    _one_of("zone", choice.zone, _ground(GcpGround, settings).zones)


def _check_onprem(settings: Mapping[str, Any], choice: Choice) -> None:
    from providers.onprem import OnPremGround, inventory

    sizes = inventory.load(_ground(OnPremGround, settings).inventory).sizes()
    zones = {one.name: one.zones for one in sizes}
    _one_of("size", choice.size, tuple(zones))
    _one_of("zone", choice.zone, ("", *zones[choice.size]))


def _one_of(what: str, given: str, known: Sequence[str]) -> None:
    if given not in known:
        words = ", ".join(filter(None, known)) or "none"
        raise _wrong(f"{what} {given!r} is not set up here: {words} can be ordered", what)


def _joined(settings: Mapping[str, Any]) -> HostProvider:
    if settings:
        raise _wrong(f"a provider of machines that join has no settings, and these are set: {', '.join(settings)}")
    return Joined()


def _aws(settings: Mapping[str, Any]) -> HostProvider:
    import botocore.session

    from providers.aws import Aws, AwsGround

    ground = _ground(AwsGround, settings, secret="keys")
    try:
        found = botocore.session.Session().get_credentials()
    except Exception as wrong:
        raise _missing(f"the AWS configuration cannot be read: {type(wrong).__name__}") from None
    if found is None:
        raise _missing("no AWS credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role")
    return Aws(ground)


def _azure(settings: Mapping[str, Any]) -> HostProvider:
    from azure.core.credentials import AccessToken
    from azure.core.exceptions import AzureError

    from providers.azure import Azure, AzureGround

    class Emulated:
        """The token of an emulator, which is no secret."""

        def get_token(self, *scopes: str, **more: Any) -> AccessToken:
            return AccessToken(os.environ[EMULATED_AZURE_TOKEN], int(time.time()) + 3600)

    ground = _ground(AzureGround, settings, secret="credential")
    if ground.on_loopback and os.environ.get(EMULATED_AZURE_TOKEN):
        return Azure(_ground(AzureGround, settings, secret="credential", credential=Emulated()))
    from azure.identity import DefaultAzureCredential

    try:
        DefaultAzureCredential().get_token(f"{ground.endpoint.rstrip('/')}/.default")
    except AzureError as wrong:
        names = [name for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID") if not os.environ.get(name)]
        hint = f"; not set: {', '.join(names)}" if names else ""
        raise _missing(f"no Azure credentials: {type(wrong).__name__}{hint}, and no managed identity answers") from None
    return Azure(ground)


def _gcp(settings: Mapping[str, Any]) -> HostProvider:
    import google.auth
    from google.auth.exceptions import GoogleAuthError

    from providers.gcp import Gcp, GcpGround

    ground = _ground(GcpGround, settings, secret="credentials")
    if not ground.endpoint.startswith("http://"):
        try:
            google.auth.default()
        except GoogleAuthError:
            words = "no Google Cloud credentials: GOOGLE_APPLICATION_CREDENTIALS, or a service account of the machine"
            raise _missing(words) from None
    return Gcp(ground)


def _onprem(settings: Mapping[str, Any]) -> HostProvider:
    from providers.onprem import OnPrem, OnPremGround

    return OnPrem(_ground(OnPremGround, settings))


_KINDS: dict[str, Callable[[Mapping[str, Any]], HostProvider]] = {
    "joined": _joined,
    "onprem": _onprem,
    "aws": _aws,
    "azure": _azure,
    "gcp": _gcp,
}
KINDS = tuple(_KINDS)
_CHECKS: dict[str, Callable[[Mapping[str, Any], Choice], None]] = {
    "aws": _check_aws,
    "azure": _check_azure,
    "gcp": _check_gcp,
    "onprem": _check_onprem,
}


def _ground(of: type, settings: Mapping[str, Any], secret: str = "", **more: Any) -> Any:
    """Settings from a file, checked field by field; a secret has no place in a file."""
    if secret in settings:
        raise _wrong(f"{secret} may not stand in a file: the SDK finds credentials in its own places", secret)
    unknown = set(settings) - set(of.__dataclass_fields__)  # type: ignore[attr-defined]
    if unknown:
        raise _wrong(f"unknown settings: {', '.join(sorted(unknown))}", min(unknown))
    adapter: TypeAdapter[Any] = TypeAdapter(of)
    try:
        return adapter.validate_python({**settings, **more})
    except ValidationError as wrong:
        first = wrong.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _wrong(f"{where}: {first['msg']}", where) from None


def _wrong(words: str, code: str = "settings") -> ProviderError:
    return ProviderError(ErrorClass.INVALID, words, code=code, blame=Blame.CALLER)


def _missing(words: str) -> ProviderError:
    return ProviderError(ErrorClass.AUTH, words, code="credentials", blame=Blame.CALLER)
