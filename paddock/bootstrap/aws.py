"""Amazon's identity of a machine: STS signs a token for the instance's own role, and names the instance in it.

`GetWebIdentityToken` (outbound identity federation) asks for credentials that only the instance's metadata service
hands out; the claim `ec2_source_instance_arn` is STS's word, not the caller's.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from paddock.bootstrap.errors import NotYet, Refused
from paddock.bootstrap.hidden import Hidden
from paddock.bootstrap.identity import LINK_LOCAL, TIMEOUT_S, as_jwt, text_in
from paddock.bootstrap.wire import Answer, fetch

LIVES_S: Final = 300
_NAME: Final = re.compile(r"[A-Za-z0-9.+=,@_-]{1,64}")
_REGION: Final = re.compile(r"[a-z]{2,}(-[a-z]+)+-[0-9]{1,2}")
_DOMAIN: Final = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")
_TOKEN: Final = re.compile(rb"<WebIdentityToken>\s*([A-Za-z0-9_.-]+)\s*</WebIdentityToken>")
_CODE: Final = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")


def _utcnow() -> datetime:
    return datetime.now(UTC)


class Aws:
    """An EC2 instance with an instance profile. `sts` is "" for the region's own endpoint."""

    def __init__(
        self,
        metadata: str = LINK_LOCAL,
        sts: str = "",
        timeout_s: float = TIMEOUT_S,
        now: Callable[[], datetime] = _utcnow,
    ) -> None:
        self._metadata, self._sts, self._timeout_s, self._now = metadata, sts, timeout_s, now

    def prove(self, audience: str) -> Hidden:
        session = self._session()
        region = self._said(session, "placement/region", _REGION)
        role = self._said(session, "iam/security-credentials/", _NAME)
        keys = self._get(session, f"iam/security-credentials/{role}").body
        if text_in(keys, "Code") != "Success":
            raise NotYet("the metadata service has no credentials for this machine yet")
        endpoint = self._sts or f"https://sts.{region}.{self._said(session, 'services/domain', _DOMAIN)}"
        asked = {
            "Action": "GetWebIdentityToken",
            "Version": "2011-06-15",
            "Audience.member.1": audience,
            "DurationSeconds": str(LIVES_S),
            "SigningAlgorithm": "RS256",
        }
        body = urlencode(asked).encode()
        headers = signed_headers(
            endpoint,
            body,
            region=region,
            key_id=text_in(keys, "AccessKeyId"),
            key=Hidden(text_in(keys, "SecretAccessKey")),
            session=Hidden(text_in(keys, "Token")),
            now=self._now(),
        )
        answer = fetch(
            f"{endpoint}/", what="AWS STS", timeout_s=self._timeout_s, method="POST", headers=headers, body=body
        )
        return _token(answer)

    def _session(self) -> Hidden:
        answer = fetch(
            f"{self._metadata}/latest/api/token",
            what="the metadata service",
            timeout_s=self._timeout_s,
            method="PUT",
            headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"},
        )
        text = answer.body.decode("ascii", "replace").strip()
        if answer.status != 200 or not re.fullmatch(r"[!-~]{1,1024}", text):
            raise NotYet(f"the metadata service opens no session ({answer.status})", field=self._metadata)
        return Hidden(text)

    def _get(self, session: Hidden, path: str) -> Answer:
        answer = fetch(
            f"{self._metadata}/latest/meta-data/{path}",
            what="the metadata service",
            timeout_s=self._timeout_s,
            headers={"X-aws-ec2-metadata-token": session.value},
        )
        if answer.status == 404 and path.startswith("iam/"):
            # A profile reaches the metadata service some seconds after the instance starts.
            raise NotYet("this machine has no instance profile, or does not know of it yet", field=self._metadata)
        if answer.status != 200:
            raise NotYet(f"the metadata service does not tell {path} ({answer.status})", field=self._metadata)
        return answer

    def _said(self, session: Hidden, path: str, form: re.Pattern[str]) -> str:
        text = self._get(session, path).body.decode("ascii", "replace").strip()
        if not form.fullmatch(text):
            raise NotYet(f"the metadata service's {path} cannot be read", field=self._metadata)
        return text


def _token(answer: Answer) -> Hidden:
    found = _TOKEN.search(answer.body)
    if answer.status == 200 and found:
        return as_jwt(found[1])
    code = _CODE.search(answer.body)
    word = f"{answer.status} {code[1].decode()}" if code else str(answer.status)
    if answer.status == 429 or answer.status >= 500 or answer.status == 200 or (code and b"Thrott" in code[1]):
        raise NotYet(f"AWS STS gave no token ({word})")
    raise Refused(
        f"AWS STS refused to say who this machine is ({word})",
        status=answer.status,
        remedy="enable outbound identity federation in the account, and allow sts:GetWebIdentityToken to hosts",
    )


def signed_headers(
    url: str, body: bytes, *, region: str, key_id: str, key: Hidden, session: Hidden, now: datetime
) -> Mapping[str, str]:
    """The headers of a form that is POSTed to STS, signed by AWS Signature Version 4."""
    moment = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "host": urlsplit(url).netloc,
        "x-amz-date": moment,
        "x-amz-security-token": session.value,
    }
    names = ";".join(sorted(headers))
    path = quote(urlsplit(url).path or "/")
    lines = [f"{name}:{headers[name]}" for name in sorted(headers)]
    canonical = "\n".join(["POST", path, "", *lines, "", names, hashlib.sha256(body).hexdigest()])
    scope = f"{moment[:8]}/{region}/sts/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signing = f"AWS4{key.value}".encode()
    for part in (moment[:8], region, "sts", "aws4_request"):
        signing = hmac.digest(signing, part.encode(), "sha256")
    signature = hmac.digest(signing, text.encode(), "sha256").hex()
    proof = f"AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "authorization": proof}
