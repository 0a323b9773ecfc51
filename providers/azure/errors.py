"""Azure's errors in Paddock's words: one function says what failed, whose turn it is, and when to ask again."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    DecodeError,
    HttpResponseError,
    IncompleteReadError,
)

from providers.contract import Blame, ErrorClass, ProviderError

# An interface of a failed machine stays promised to it for so long.
NIC_RESERVED_S: Final = 180.0
BUSY_S: Final = 30.0
_LONGEST: Final = 600
_WRAPPERS: Final = {"Conflict", "BadRequest", "DeploymentFailed", "ResourceOperationFailure"}

_KINDS: Final[Mapping[ErrorClass, frozenset[str]]] = {
    ErrorClass.THROTTLED: frozenset(
        {
            "TooManyRequests",
            "SubscriptionRequestsThrottled",
            "OperationThrottled",
            "ResourceCollectionRequestsThrottled",
            "RetryableErrorDueToAnotherOperation",
        }
    ),
    ErrorClass.TRANSIENT: frozenset(
        {
            "NicReservedForAnotherVm",
            "NicInUse",
            "OperationPreempted",
            "RetryableError",
            "AnotherOperationInProgress",
            "AttachDiskWhileBeingDetached",
            "InternalServerError",
            "InternalOperationError",
            "InternalExecutionError",
            "NetworkingInternalOperationError",
            "ServerTimeout",
            "GatewayTimeout",
            "ServiceUnavailable",
            "OSProvisioningTimedOut",
            "OSProvisioningInternalError",
            "VMStartTimedOut",
        }
    ),
    ErrorClass.CAPACITY: frozenset(
        {
            "AllocationFailed",
            "ZonalAllocationFailed",
            "OverconstrainedAllocationRequest",
            "OverconstrainedZonalAllocationRequest",
            "SkuNotAvailable",
            "SubnetIsFull",
        }
    ),
    ErrorClass.QUOTA: frozenset({"QuotaExceeded", "ResourceQuotaExceeded", "SubscriptionQuotaExceeded"}),
    ErrorClass.AUTH: frozenset(
        {
            "AuthorizationFailed",
            "LinkedAuthorizationFailed",
            "AuthenticationFailed",
            "InvalidAuthenticationToken",
            "InvalidAuthenticationTokenTenant",
            "ExpiredAuthenticationToken",
            "ReadOnlyDisabledSubscription",
        }
    ),
    # By code too: a machine that failed later tells no HTTP status.
    ErrorClass.INVALID: frozenset(
        {
            "RequestDisallowedByPolicy",
            "ScopeLocked",
            "MissingSubscriptionRegistration",
            "InvalidParameter",
            "InvalidResourceReference",
            "InvalidTagNameCharacters",
            "GalleryImageNotFound",
            "ImageNotFound",
            "PlatformImageNotFound",
            "AvailabilityZoneNotSupported",
            "InvalidAvailabilityZone",
        }
    ),
    ErrorClass.CONFLICT: frozenset({"PropertyChangeNotAllowed", "PreconditionFailed"}),
}
_KIND_OF: Final = {code: kind for kind, codes in _KINDS.items() for code in codes}

_BLAME: Final = {
    ErrorClass.THROTTLED: Blame.PROVIDER,
    ErrorClass.TRANSIENT: Blame.PROVIDER,
    ErrorClass.CAPACITY: Blame.PROVIDER,
    ErrorClass.QUOTA: Blame.CALLER,
    ErrorClass.AUTH: Blame.CALLER,
    ErrorClass.INVALID: Blame.CALLER,
    ErrorClass.CONFLICT: Blame.PADDOCK,
}

_SIGN_IN: Final = "the credential is not valid any more: renew it, or sign the worker's identity in again"
_HINTS: Final = {
    "ExpiredAuthenticationToken": _SIGN_IN,
    "InvalidAuthenticationToken": _SIGN_IN,
    "AuthenticationFailed": _SIGN_IN,
    "InvalidAuthenticationTokenTenant": "the credential is another tenant's: check tenant and subscription",
    "AuthorizationFailed": "give the worker's identity the role that the ground's Terraform defines",
    "LinkedAuthorizationFailed": "the worker's identity may not use the subnet, image or identity: give it that role",
    "SubscriptionNotFound": "the environment names a subscription that is not there, or is another tenant's",
    "InvalidSubscriptionId": "the environment names no valid subscription",
    "ReadOnlyDisabledSubscription": "the subscription is disabled: a person must enable it",
    "ResourceGroupNotFound": "the environment's resource group is missing: make it with the ground's Terraform",
    "ResourceGroupBeingDeleted": "somebody deletes the environment's resource group",
    "GalleryImageNotFound": "the image is missing or not in this region: check the environment's image",
    "ImageNotFound": "the image is missing or not in this region: check the environment's image",
    "PlatformImageNotFound": "the image is missing or not in this region: check the environment's image",
    "InvalidResourceReference": "what the environment names (subnet, image or identity) is missing",
    "InvalidTagNameCharacters": "Azure takes no tag with < > % & \\ ? or /",
    "RequestDisallowedByPolicy": "a policy of the subscription refuses it, often for its tags: exempt it",
    "ScopeLocked": "a lock on the resource group forbids it: remove the lock",
    "MissingSubscriptionRegistration": "register Microsoft.Compute and Microsoft.Network in the subscription",
    "AvailabilityZoneNotSupported": "the region has no such zone: check the environment's zones",
    "InvalidAvailabilityZone": "the region has no such zone: check the environment's zones",
    "SkuNotAvailable": "this size is not to be had there now, or not by this subscription",
    "NicReservedForAnotherVm": "the interface is promised to a machine that failed, for three minutes",
}


def classify(error: AzureError, doing: str) -> ProviderError:
    """What went wrong while `doing`; waits in seconds."""
    if isinstance(error, (DecodeError, IncompleteReadError)) or not isinstance(error, HttpResponseError):
        return _make(ErrorClass.TRANSIENT, type(error).__name__, _plain(str(error)), doing)
    status = error.status_code or 0
    code, message = _told_by(error)
    if isinstance(error, ClientAuthenticationError) and code not in _KIND_OF:  # no token was to be had at all
        return _make(ErrorClass.AUTH, code or type(error).__name__, f"{message}; {_SIGN_IN}", doing)
    return _make(kind_of(code, message, status), code or f"HTTP {status}", message, doing, _wait_of(error, code))


def kind_of(code: str, message: str, status: int = 0) -> ErrorClass:
    """The class by the code that Azure gives; the HTTP status counts only for codes that are not known."""
    if code in _KIND_OF:
        return _KIND_OF[code]
    words = message.lower()
    if "Quota" in code or code.endswith("LimitReached") or (code == "OperationNotAllowed" and "quota" in words):
        return ErrorClass.QUOTA
    if code == "OperationNotAllowed" and re.search(r"is (currently )?attached|being (created|deleted|updated)", words):
        return ErrorClass.TRANSIENT
    if status == 429:
        return ErrorClass.THROTTLED
    if status in {401, 403}:
        return ErrorClass.AUTH
    if status == 412:
        return ErrorClass.CONFLICT
    # 200 is how an operation that failed later is told: what it may have left behind is not known.
    return ErrorClass.TRANSIENT if status in {0, 200, 408} or status >= 500 else ErrorClass.INVALID


def _make(kind: ErrorClass, code: str, message: str, doing: str, wait: float | None = None) -> ProviderError:
    hint = _HINTS.get(code, "")
    if kind is ErrorClass.QUOTA:
        none = re.search(r"limit: 0\b", message, re.I)
        hint = "the quota is 0: ask Azure for some" if none else "ask Azure for more, or end machines"
    words = f"{doing}: {code}: {message}" if message else f"{doing}: {code}"
    return ProviderError(kind, f"{words}; {hint}" if hint else words, code=code, blame=_BLAME[kind], retry_after_s=wait)


def _told_by(error: HttpResponseError) -> tuple[str, str]:
    """Code and message, the innermost where an outer one only says that something failed."""
    told = error.error
    if told is None:
        return "", _plain(error.message or error.reason or "")
    while told.details and told.code in _WRAPPERS:
        told = told.details[0]
    return str(told.code or ""), _plain(str(told.message or error.message or ""))


def _wait_of(error: HttpResponseError, code: str) -> float | None:
    headers = getattr(error.response, "headers", {})
    told = _seconds(headers.get("Retry-After") or "")
    if told is not None:
        return told
    if code == "NicReservedForAnotherVm":
        return NIC_RESERVED_S
    return BUSY_S if code == "NicInUse" else None


def _seconds(text: str) -> float | None:
    """A Retry-After header, as seconds or as a date."""
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _plain(text: str) -> str:
    return " ".join(text.split())[:_LONGEST]
