"""One machine's BMC through sushy: one try for each request, verified TLS, and errors in the contract's classes."""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from sushy import exceptions
from sushy.connector import Connector
from sushy.resources.constants import PowerState, ResetType
from sushy.resources.system.constants import BootSource, BootSourceOverrideEnabled
from sushy.resources.system.system import System

from providers.contract import Blame, ErrorClass, ProviderError
from providers.onprem.inventory import Machine, Site
from providers.onprem.life import Look, Power

_POWER = {PowerState.ON: Power.ON, PowerState.OFF: Power.OFF}
_WORDS = 200
_LARGEST = 2 << 20
# Its errors repeat whole answers; ours say the same in bounded words.
logging.getLogger("sushy").setLevel(logging.CRITICAL)


class _OneTry(Connector):  # type: ignore[misc]
    """A connector without sushy's own retries.

    sushy has no setting for that: with `server_side_retries=0` it tries a broken connection three times, also for a
    POST, and with 1 it asks again after a server's error.
    """

    def __init__(self, url: str, username: str, password: str, verify: bool | str, connect_s: float, read_s: float):
        self.retry_after: float | None = None
        self.status = 0
        self._read_s = read_s
        super().__init__(
            url,
            verify=verify,
            response_callback=self._answered,
            server_side_retries=1,
            default_request_timeout=read_s,
            connect_timeout=connect_s,
        )
        # Else a proxy, a .netrc or a CA bundle of the environment would be used.
        self._session.trust_env = False
        self.set_http_basic_auth(username.encode(), password.encode())  # else requests refuses more than Latin-1

    def _op(self, method: str, path: str = "", **options: Any) -> Any:
        # A BMC names the place of its actions itself: never send its account to another address.
        there, here = urlsplit(path), urlsplit(self._url)
        if there.netloc and (there.scheme, there.netloc) != (here.scheme, here.netloc):
            raise exceptions.ConnectionError(url=self._url, error="it names another address for its own resource")
        return super()._op(method, path, **(options | {"server_side_retries_left": 0, "stream": True}))

    def _answered(self, response: requests.Response) -> None:
        self.status = response.status_code
        said = response.headers.get("Retry-After", "")
        self.retry_after = float(said) if re.fullmatch(r"[0-9]{1,6}", said) else None
        response._content = self._body(response)

    def _body(self, response: requests.Response) -> bytes:
        """The whole body, which requests alone would read without an end in size and time."""
        body, until = bytearray(), time.monotonic() + self._read_s
        try:
            while chunk := response.raw.read1(1 << 16, decode_content=True):
                body += chunk
                if len(body) > _LARGEST or time.monotonic() > until:
                    raise exceptions.ConnectionError(url=self._url, error="its answer is too long or too slow")
        except urllib3.exceptions.HTTPError as wrong:
            raise exceptions.ConnectionError(url=self._url, error=type(wrong).__name__) from None
        finally:
            response.close()
        return bytes(body)


class Bmc:
    """What Paddock asks of a machine's BMC. Every method raises ProviderError; after one with `again`, it may be done.

    `connect_s` and `read_s` bound each request, in seconds.
    """

    def __init__(self, machine: Machine, site: Site, connect_s: float, read_s: float) -> None:
        self.machine = machine
        credentials = site.credentials[machine.credentials]
        who = f"{machine.name}: the BMC's"
        self._password = credentials.password.read(f"{who} password")
        ca = machine.ca or site.ca
        if ca is not None and not ca.exists():
            raise ProviderError(
                ErrorClass.AUTH, f"{who} certificates: there is no {ca}", code="tls", blame=Blame.CALLER
            )
        verify = str(ca) if ca else True
        user = credentials.username.read(f"{who} user")
        self._connector = _OneTry(machine.bmc, user, self._password, verify, connect_s, read_s)

    def look(self) -> Look:
        """Whether the machine is on."""
        with self._asking("look at its power"):
            system = self._system()
            said, reset = system.power_state, system.json.get("LastResetTime")
        return Look(_POWER.get(said, Power.CHANGING), reset[:64] if isinstance(reset, str) else "")

    def turn_on(self, target: str) -> None:
        """Boot from `target`, this once."""
        with self._asking("set its boot target"):
            system = self._system()
            system.set_system_boot_options(BootSource(target), BootSourceOverrideEnabled.ONCE)
        with self._asking("turn it on"):
            system.reset_system(ResetType.ON)

    def turn_off(self) -> None:
        """Off at once; a machine that is off already is no error."""
        with self._asking("turn it off"):
            system = self._system()
            try:
                system.reset_system(ResetType.FORCE_OFF)
            except exceptions.HTTPError as wrong:
                if wrong.status_code not in {400, 409} or _POWER.get(system.power_state) is not Power.OFF:
                    raise

    def close(self) -> None:
        """End the connections."""
        self._connector.close()

    def _system(self) -> Any:
        return System(self._connector, self.machine.path)

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        who = f"{self.machine.name}: its BMC {self.machine.bmc}"
        try:
            yield
        except exceptions.ConnectionError as wrong:
            raise self._unreached(who, what, wrong) from None
        except exceptions.HTTPError as wrong:
            raise self._refused(who, what, wrong.status_code, wrong.detail or wrong.code, wrong.code) from None
        except exceptions.SushyError as wrong:
            raise ProviderError(
                ErrorClass.INVALID, f"{who} cannot {what}: {self._clean(wrong)}", code=type(wrong).__name__
            ) from None
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as wrong:
            # sushy reads a refusal's body before its status: a body that is not Redfish hides neither 401 nor 503.
            status = self._connector.status
            code = type(wrong).__name__
            raise self._refused(who, what, status if status >= 400 else 500, "what is not Redfish", code) from None

    def _unreached(self, who: str, what: str, wrong: Exception) -> ProviderError:
        if isinstance(wrong.__context__, requests.exceptions.SSLError):
            words = f"{who} has a certificate that is not trusted; name its CA in the inventory (`ca`)"
            return ProviderError(ErrorClass.AUTH, words, code="tls", blame=Blame.CALLER)
        cause = type(wrong.__context__).__name__ if wrong.__context__ else self._clean(wrong)
        return ProviderError(ErrorClass.TRANSIENT, f"{who} does not answer ({what}): {cause}", code="unreachable")

    def _refused(self, who: str, what: str, status: int, said: object, code: object) -> ProviderError:
        words = f"{who} answered {status} when asked to {what}: {self._clean(said)}"
        blame = Blame.PROVIDER
        match status:
            case 401 | 403:
                kind, blame = ErrorClass.AUTH, Blame.CALLER
            case 429 | 503:
                kind = ErrorClass.THROTTLED
            case 404:
                kind, blame = ErrorClass.INVALID, Blame.CALLER
                words = f"{who} has no system {self.machine.path}"
            # While it still works on something else, a BMC refuses with these.
            case 408 | 409 | 412 | 423:
                kind = ErrorClass.TRANSIENT
            case _ if 400 <= status < 500 or status == 501:
                kind = ErrorClass.INVALID
            case _:
                kind = ErrorClass.TRANSIENT
        wait = self._connector.retry_after
        return ProviderError(kind, words, code=f"{status} {self._clean(code)}", blame=blame, retry_after_s=wait)

    def _clean(self, said: object) -> str:
        """A BMC's words: short, printable, and without the password should it echo that."""
        words = "".join(c if c.isprintable() else " " for c in str(said).replace(self._password, "***"))
        return words[:_WORDS]
