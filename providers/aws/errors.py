"""One place that says what a failed call of EC2 means, in words that hold no credential."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

from botocore import exceptions as sdk

from providers.contract import Blame, ErrorClass, ProviderError

NO_INSTANCE: Final = "InvalidInstanceID.NotFound"
# A side resource that a machine still holds: free once the machine is gone.
IN_USE: Final = frozenset(
    {"VolumeInUse", "InvalidNetworkInterface.InUse", "InvalidIPAddress.InUse", "DependencyViolation"}
)
_LONGEST: Final = 400
_CODES: Final[Mapping[ErrorClass, str]] = {
    ErrorClass.THROTTLED: """RequestLimitExceeded Throttling ThrottlingException ThrottledException RequestThrottled
        RequestThrottledException EC2ThrottledException TooManyRequestsException SlowDown BandwidthLimitExceeded""",
    ErrorClass.TRANSIENT: """InternalError InternalFailure Unavailable ServiceUnavailable ServiceUnavailableException
        RequestTimeout RequestTimeoutException PriorRequestNotComplete IncorrectInstanceState IncorrectState
        InvalidAMIID.Unavailable""",
    ErrorClass.CAPACITY: """InsufficientInstanceCapacity InsufficientHostCapacity InsufficientCapacity
        InsufficientReservedInstanceCapacity InsufficientCapacityOnHost InsufficientFreeAddressesInSubnet
        UnfulfillableCapacity ReservationCapacityExceeded SpotMaxPriceTooLow Unsupported""",
    ErrorClass.QUOTA: """VcpuLimitExceeded InstanceLimitExceeded MaxSpotInstanceCountExceeded MaxFleetCountExceeded
        VolumeLimitExceeded MaxIOPSLimitExceeded ResourceLimitExceeded""",
    ErrorClass.AUTH: """UnauthorizedOperation AuthFailure AccessDenied AccessDeniedException NotAuthorized
        OptInRequired PendingVerification Blocked ExpiredToken ExpiredTokenException TokenRefreshRequired RequestExpired
        InvalidClientTokenId UnrecognizedClientException InvalidAccessKeyId MissingAuthenticationToken
        IncompleteSignature SignatureDoesNotMatch InvalidSignatureException""",
    ErrorClass.INVALID: "TagLimitExceeded UnsupportedOperation OperationNotPermitted",
    ErrorClass.CONFLICT: "IdempotentParameterMismatch IdempotentInstanceTerminated",
}
_KINDS: Final = {code: kind for kind, codes in _CODES.items() for code in codes.split()} | dict.fromkeys(
    IN_USE, ErrorClass.TRANSIENT
)
_BLAME: Final = {
    ErrorClass.QUOTA: Blame.CALLER,
    ErrorClass.AUTH: Blame.CALLER,
    ErrorClass.INVALID: Blame.CALLER,
    ErrorClass.CONFLICT: Blame.PADDOCK,
}
_EXPIRED: Final = "the credentials have expired: renew them"
_CLOCK: Final = "check that the secret key is right and this machine's clock too"
_IMAGE: Final = "the image must be an AMI of this region that this account may use: set another image"
_SIZE: Final = "EC2 has no such size: `catalogue` lists those that run sandboxes"
_SUBNET: Final = "the subnet must exist in this region: correct the zone's subnet in the settings"
_QUOTA: Final = "a person must ask AWS for a higher quota, or end other machines"
# What a person can do about it.
_ADVICE: Final[Mapping[str, str]] = {
    "InvalidAMIID.NotFound": _IMAGE,
    "InvalidAMIID.Malformed": _IMAGE,
    "InvalidAMIID.Unavailable": "the image is not ready yet",
    "InvalidInstanceType": _SIZE,
    "InvalidSubnetID.NotFound": _SUBNET,
    "InvalidSubnetId.NotFound": _SUBNET,
    "InvalidGroup.NotFound": "the security group must exist in the subnet's network: correct it in the settings",
    "OptInRequired": "enable this region for the account, or take it out of the settings",
    "PendingVerification": "AWS is still verifying the account, which takes up to a few hours",
    "Blocked": "AWS has blocked the account: ask its support",
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestExpired": f"{_EXPIRED}, or set this machine's clock",
    "AuthFailure": "AWS does not accept these credentials: check the keys, and this machine's clock",
    "InvalidClientTokenId": "AWS does not know this access key: check the keys",
    "SignatureDoesNotMatch": _CLOCK,
    "InvalidSignatureException": _CLOCK,
    "IncompleteSignature": _CLOCK,
    "MissingAuthenticationToken": "the request carried no credentials",
    "VcpuLimitExceeded": _QUOTA,
    "InstanceLimitExceeded": _QUOTA,
    "MaxSpotInstanceCountExceeded": _QUOTA,
    "InsufficientFreeAddressesInSubnet": "the zone's subnet has no free address",
    "TagLimitExceeded": "the resource has more tags than AWS allows",
    "OperationNotPermitted": "termination protection may be on: a person must switch it off",
    "IdempotentParameterMismatch": "this attempt was ordered before with other values: order a new attempt",
    "IdempotentInstanceTerminated": "the machine of this attempt has ended: order a new attempt",
}
# Texts that repeat the signed request, session token and all.
_UNREPEATED: Final = frozenset({"SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature"})
_ACCESS_KEY: Final = re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{8,}\b")
_ENCODED: Final = re.compile(r"Encoded authorization failure message:.*", re.DOTALL)
_NO_CREDENTIALS: Final = (
    sdk.NoCredentialsError,
    sdk.PartialCredentialsError,
    sdk.CredentialRetrievalError,
    sdk.TokenRetrievalError,
    sdk.SSOError,
    sdk.NoAuthTokenError,
    sdk.ProfileNotFound,
)


def classify(error: Exception, doing: str = "EC2", hide: Iterable[str] = ()) -> ProviderError:
    """The same failure in the contract's words; never raises. Its text is bounded, and without the words to `hide`."""
    if isinstance(error, ProviderError):
        return error
    if isinstance(error, sdk.ClientError):
        return _answered(error, doing, tuple(hide))
    code, kind, advice = type(error).__name__, ErrorClass.TRANSIENT, ""
    if isinstance(error, _NO_CREDENTIALS):
        kind, advice = ErrorClass.AUTH, "no usable AWS credentials: set keys, or a role that the SDK finds"
    elif isinstance(
        error, sdk.ParamValidationError | sdk.InvalidRegionError | sdk.NoRegionError | sdk.DataNotFoundError
    ):
        kind = ErrorClass.INVALID
    elif isinstance(error, sdk.EndpointConnectionError):
        advice = "is the network up, and the region's name right?"
    text = _clean(str(error), tuple(hide))
    return ProviderError(kind, _sentence(doing, code, text, advice), code=code, blame=_blame(kind))


def _answered(error: sdk.ClientError, doing: str, hide: tuple[str, ...]) -> ProviderError:
    """What EC2 itself answered."""
    said, meta = _mapping(error.response, "Error"), _mapping(error.response, "ResponseMetadata")
    code, message = _word(said.get("Code")), str(said.get("Message") or "")
    kind = kind_of(code, _number(meta.get("HTTPStatusCode")))
    text = "" if code in _UNREPEATED else _clean(message, hide)
    advice = _ADVICE.get(code, "") or _advice_by_text(code, kind, message)
    if kind is ErrorClass.QUOTA and re.search(r"limit of 0\b", message):
        advice = "this account's quota for such machines is zero: ask AWS for one"
    return ProviderError(
        kind,
        _sentence(doing, code, text, advice),
        code=code,
        blame=_blame(kind),
        retry_after_s=_retry_after(_mapping(meta, "HTTPHeaders")),
    )


def kind_of(code: str, status: int) -> ErrorClass:
    """What an error code means; one that is not known goes by its shape, then by the HTTP status."""
    if code in _KINDS:
        return _KINDS[code]
    if code.startswith("AuthFailure"):
        return ErrorClass.AUTH
    if code.startswith("Insufficient"):
        return ErrorClass.CAPACITY
    if code.endswith("LimitExceeded"):
        return ErrorClass.QUOTA
    if status == 429:
        return ErrorClass.THROTTLED
    if status in {401, 403}:
        return ErrorClass.AUTH
    # Without a status nobody knows whether it happened.
    return ErrorClass.INVALID if 400 <= status < 500 else ErrorClass.TRANSIENT


def _advice_by_text(code: str, kind: ErrorClass, message: str) -> str:
    low = message.lower()
    if kind is ErrorClass.AUTH and "createtags" in low:
        return "the role may not tag what it creates: allow ec2:CreateTags for ec2:CreateAction RunInstances"
    if kind is ErrorClass.AUTH:
        return "the role lacks a permission that this call needs: add it to the role"
    if code.startswith("InvalidParameter") and "user data" in low:
        return "user data holds at most 16384 bytes"
    if code.startswith("InvalidParameter") and "tag" in low:
        return "AWS refuses a tag of this order"
    if code.startswith("InvalidParameter") and ("instancetype" in low or "instance type" in low):
        return _SIZE
    return _QUOTA if kind is ErrorClass.QUOTA else ""


def _sentence(doing: str, code: str, text: str, advice: str) -> str:
    parts = [doing, code, text.rstrip(". ")]
    whole = ": ".join(part for part in parts if part)
    # The advice matters most, so the provider's own text is what is cut.
    return f"{whole[: _LONGEST - len(advice)]}. {advice}".rstrip(". ")


def _clean(text: str, hide: tuple[str, ...]) -> str:
    for secret in hide:
        text = text.replace(secret, "***")
    text = _ACCESS_KEY.sub("***", _ENCODED.sub("", text))
    printable = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * _LONGEST])
    return " ".join(printable.split())


def _retry_after(headers: Mapping[str, object]) -> float | None:
    """Seconds, where an answer carries them: EC2 itself seldom does, what stands before it may."""
    for name, value in headers.items():
        if str(name).lower() == "retry-after":
            try:
                seconds = float(str(value))
            except ValueError:
                return None
            return min(seconds, 3600.0) if math.isfinite(seconds) and seconds >= 0 else None
    return None


def _mapping(outer: object, name: str) -> Mapping[str, object]:
    inner = outer.get(name) if isinstance(outer, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


def _word(code: object) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "", str(code or ""))[:80]


def _number(status: object) -> int:
    return status if isinstance(status, int) else 0


def _blame(kind: ErrorClass) -> Blame:
    return _BLAME.get(kind, Blame.PROVIDER)
