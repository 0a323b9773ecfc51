"""Google's failures in the contract's words: answers, errors inside operations, credentials and the network."""

import re
from collections.abc import Mapping
from typing import Any, Final

from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud import compute_v1
from google.protobuf.json_format import ParseError
from requests.exceptions import RequestException

from providers.contract import Blame, ErrorClass, ProviderError

# What a call of the SDK can raise; anything else is a bug of ours and passes.
FAILURES: Final = (GoogleAPICallError, GoogleAuthError, RequestException, ParseError)

# Google's own word decides before the status: a 403 may be throttling, quota or a missing permission.
CODES: Final = {
    "rateLimitExceeded": ErrorClass.THROTTLED,
    "userRateLimitExceeded": ErrorClass.THROTTLED,
    "RATE_LIMIT_EXCEEDED": ErrorClass.THROTTLED,
    "RESOURCE_OPERATION_RATE_EXCEEDED": ErrorClass.THROTTLED,
    "resourceOperationRateExceeded": ErrorClass.THROTTLED,
    "CONCURRENT_OPERATIONS_QUOTA_EXCEEDED": ErrorClass.THROTTLED,
    "quotaExceeded": ErrorClass.QUOTA,
    "QUOTA_EXCEEDED": ErrorClass.QUOTA,
    "ZONE_RESOURCE_POOL_EXHAUSTED": ErrorClass.CAPACITY,
    "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS": ErrorClass.CAPACITY,
    "resourcePoolExhausted": ErrorClass.CAPACITY,
    "insufficientCapacity": ErrorClass.CAPACITY,
    "UNSUPPORTED_OPERATION": ErrorClass.CAPACITY,
    "RESOURCE_NOT_READY": ErrorClass.CAPACITY,
    "resourceNotReady": ErrorClass.TRANSIENT,
    "resourceInUseByAnotherResource": ErrorClass.TRANSIENT,
    "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE": ErrorClass.TRANSIENT,
    "INTERNAL_ERROR": ErrorClass.TRANSIENT,
    "alreadyExists": ErrorClass.CONFLICT,
    "RESOURCE_ALREADY_EXISTS": ErrorClass.CONFLICT,
    "RESOURCE_NOT_FOUND": ErrorClass.INVALID,
    "PERMISSIONS_ERROR": ErrorClass.AUTH,
    "conditionNotMet": ErrorClass.AUTH,  # an organisation policy
    "CONDITION_NOT_MET": ErrorClass.AUTH,
}
BLAME: Final = {
    ErrorClass.QUOTA: Blame.CALLER,
    ErrorClass.AUTH: Blame.CALLER,
    ErrorClass.INVALID: Blame.CALLER,
    ErrorClass.CONFLICT: Blame.PADDOCK,
}
# What to do, by what Google's text names; the first that fits is added to it.
ADVICE: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), words)
    for pattern, words in (
        (r"permission", "grant this permission to the environment's credentials"),
        (
            r"disableNestedVirtualization",
            "the organisation policy constraints/compute.disableNestedVirtualization forbids KVM in machines: "
            "have it allowed for this project, or order a *-metal size",
        ),
        (r"constraints/", "an organisation policy forbids this: have it allowed for this project"),
        (r"limit: 0(\.0)?(?!\.?\d)", "this quota is zero: ask Google to grant it to the project, or order elsewhere"),
        (r"quota", "ask Google for more of this quota, or order in another region"),
        (r"machine_?types?\b", "the size does not exist in this zone: the catalogue lists sizes"),
        (r"images?\b", "the image is missing, or not shared with this project: set the environment's image"),
        (r"subnetworks?\b", "the subnetwork is missing: the ground's settings name one for each region"),
        (r"labels?\b", "Google refused the tags"),
        (r"service[ _]?account", "the service account is missing, or may not be used by these credentials"),
        (r"has not been used in project|is disabled", "enable the Compute Engine API in this project"),
        (r"unknown zone|field 'zone'", "the zone does not exist: set the environment's zones"),
        (r"'projects/[^/']+' was not found", "the project does not exist or is hidden from these credentials"),
    )
)
LONGEST: Final = 600  # characters of Google's own text: an answer may be a whole page of some proxy's
LONGEST_CODE: Final = 100
LONGEST_WAIT_S: Final = 86_400.0
EXPIRED: Final = "the credentials are expired, revoked or missing: renew the environment's Google credentials"


def classify(error: Exception) -> ProviderError:
    """The contract's error for one of FAILURES; its message is Google's own, and what to do."""
    match error:
        case GoogleAPICallError():
            return _of_answer(error)
        case TransportError():
            return ProviderError(
                ErrorClass.TRANSIENT, f"Google's token service did not answer: {_brief(error)}", code="token"
            )
        case GoogleAuthError():
            return ProviderError(ErrorClass.AUTH, f"{_brief(error)}: {EXPIRED}", code="credentials", blame=Blame.CALLER)
        case ParseError():
            return ProviderError(
                ErrorClass.TRANSIENT, f"Google's answer cannot be read: {_brief(error)}", code="answer"
            )
        case _:
            return ProviderError(
                ErrorClass.TRANSIENT, f"no answer from Google: {_brief(error)}", code=type(error).__name__
            )


def of_operation(operation: compute_v1.Operation) -> ProviderError | None:
    """Why an operation failed, by its first error's code; None for one that did not."""
    if not operation.error.errors:
        return None
    first = operation.error.errors[0]
    details = [detail.quota_info for detail in first.error_details if detail.quota_info.metric_name]
    text = first.message or first.code
    if details and f"imit: {details[0].limit}" not in text:
        text = f"{text} ({details[0].metric_name}, limit: {details[0].limit})"
    return _made(first.code, operation.http_error_status_code, text, None)


def _of_answer(error: GoogleAPICallError) -> ProviderError:
    listed: list[Any] = [one for one in error.errors or () if isinstance(one, Mapping)]
    words = [str(one.get("reason", "")) for one in listed] + [str(error.reason or "")]
    code = next((word for word in words if word in CODES), next((word for word in words if word), ""))
    status = int(error.code or 0)
    text = str(listed[0].get("message", "")) if listed else ""
    return _made(code, status, text or str(error.message), _advised_s(error))


def _made(code: str, status: int, text: str, retry_after_s: float | None) -> ProviderError:
    kind = CODES.get(code) or _by_status(status)
    advice = EXPIRED if status == 401 else next((words for fits, words in ADVICE if fits.search(text)), "")
    if kind not in {ErrorClass.QUOTA, ErrorClass.AUTH, ErrorClass.INVALID}:
        advice = ""
    return ProviderError(
        kind,
        f"{_brief(text).rstrip('. ')}: {advice}" if advice else _brief(text) or f"Google answered {status}",
        code=code[:LONGEST_CODE] or str(status),
        blame=BLAME.get(kind, Blame.PROVIDER),
        retry_after_s=retry_after_s,
    )


def _by_status(status: int) -> ErrorClass:
    match status:
        case 429:
            return ErrorClass.THROTTLED
        case 401 | 403 | 412:
            return ErrorClass.AUTH
        case 409:
            return ErrorClass.CONFLICT
        case 408:
            return ErrorClass.TRANSIENT
        case _:
            return ErrorClass.INVALID if 400 <= status < 500 else ErrorClass.TRANSIENT


def _advised_s(error: GoogleAPICallError) -> float | None:
    """Seconds to wait, from the header or from the answer's RetryInfo."""
    headers = getattr(error.response, "headers", None) or {}
    told = [str(headers.get("Retry-After", ""))]
    told += [str(one.get("retryDelay", "")) for one in error.details or () if isinstance(one, Mapping)]
    seconds = (re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)s?", one) for one in told)
    return next((min(float(found[1]), LONGEST_WAIT_S) for found in seconds if found), None)


def _brief(words: object) -> str:
    text = str(words).strip()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
