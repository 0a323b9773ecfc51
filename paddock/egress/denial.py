"""What the guest is told when a request goes no further: enough to act on, nothing to attack with."""

import json
from typing import Final

from paddock.egress.http.message import Refused, Why
from paddock.egress.http.wire import response_head

_ASK: Final = (
    "tell the person you work for which host, method and path you need and why; only they can change the policy"
)
_WAIT: Final = "this is not a decision about the request; it may work later"
_HOW: Final = {
    Why.POLICY: _ASK,
    Why.NARROWED: _ASK,
    Why.STALE: _WAIT,
    Why.ADDRESS: _ASK,
    Why.SECRET: "tell the person you work for that the credential of this rule is not available",
    Why.AUDIT: _WAIT,
    Why.UPSTREAM: _WAIT,
    Why.BUSY: _WAIT,
    Why.TIMEOUT: _WAIT,
}


def denial_body(refused: Refused, rule: str) -> bytes:
    """The JSON object of a denial; no address, no rule text, no name of a secret."""
    denied = {
        "denied_by": "paddock",
        "reason": refused.why.value,
        "message": refused.words,
        "rule": rule or None,
        "ask": _HOW.get(refused.why, "send the request in its plain form"),
        "retry": "do not retry by other means: other hosts, encodings or protocols are refused and recorded too",
    }
    return json.dumps(denied, indent=1).encode() + b"\n"


def denial(refused: Refused, rule: str = "", *, head: bool = False) -> bytes:
    """A whole HTTP answer, after which the connection is closed; without its body for a HEAD request."""
    body = denial_body(refused, rule)
    fields = [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (b"x-paddock-denied", refused.why.value.encode()),
    ]
    start = response_head(refused.status, fields, length=len(body), chunked=False, close=True)
    return start if head else start + body
