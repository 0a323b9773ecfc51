"""The inventory file: which machines there are, where their BMCs answer, and where the credentials lie."""

import ipaddress
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, model_validator

from paddock.contracts.base import Strict
from paddock.policy.tree import Mapping, Node, Scalar, read, shown
from providers.contract import Blame, ErrorClass, HostSize, ProviderError

SYSTEMS = "/redfish/v1/Systems"
_LABEL = r"[a-z0-9][-_.a-z0-9]{0,62}"
_LABEL_RULE = "1 to 63 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit"
_SYSTEM = re.compile(r"(?:/redfish/v1(?:/[A-Za-z0-9._~:-]+)+|[A-Za-z0-9_~:-][A-Za-z0-9._~:-]{0,127})")
_MAX_SECRET = 4096


def _label(text: str) -> str:
    if not re.fullmatch(_LABEL, text):
        raise ValueError(_LABEL_RULE)
    return text


def _address(text: str) -> str:
    """A BMC's address; credentials never go over a network unencrypted, and never stand in an address."""
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        raise ValueError("an address like https://10.0.0.11 is needed") from None
    del port
    if url.username is not None or url.password is not None:
        raise ValueError("an address holds no user and no password: name them under credentials")
    if url.scheme not in {"http", "https"} or not host or url.path.strip("/") or url.query or url.fragment:
        raise ValueError("an address like https://10.0.0.11 is needed")
    if url.scheme == "http" and not _loopback(host):
        raise ValueError("https is needed: the password would pass in clear (http is for 127.0.0.1 only)")
    return text.rstrip("/")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _system(text: str) -> str:
    if not _SYSTEM.fullmatch(text) or ".." in text:
        raise ValueError(f"a system's id, or its path below {SYSTEMS}, is needed")
    return text


Label = Annotated[str, AfterValidator(_label)]


class Reference(Strict):
    """Where a secret lies: in an environment variable or in a file, read anew for each call."""

    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")] | None = None
    file: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_secret(cls, given: object) -> object:
        if not isinstance(given, dict) or len(given) != 1:
            raise ValueError("give {env: NAME} or {file: PATH}: a secret itself never stands here")
        return given

    def read(self, what: str) -> str:
        """The secret. Raises ProviderError (auth) that names the place, never the content."""
        if self.env is not None:
            value, place = os.environ.get(self.env, ""), f"environment variable {self.env}"
        else:
            place = f"file {self.file}"
            try:
                value = Path(self.file or "").read_text()[:_MAX_SECRET].rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as wrong:
                why = wrong.strerror if isinstance(wrong, OSError) else "it is not text"
                raise ProviderError(
                    ErrorClass.AUTH, f"{what} cannot be read from {place}: {why}", blame=Blame.CALLER
                ) from None
        if not value:
            raise ProviderError(ErrorClass.AUTH, f"{what} is empty in {place}", blame=Blame.CALLER)
        return value


class Credentials(Strict):
    """A BMC account by reference."""

    username: Reference
    password: Reference


class Machine(Strict):
    """One machine: `system` is its id (or path) at its BMC, `zone` its site or rack, `size` a label of your own."""

    name: Annotated[str, Field(pattern=r"^[a-z][-a-z0-9]{0,62}$")]
    bmc: Annotated[str, AfterValidator(_address)]
    system: Annotated[str, AfterValidator(_system)]
    size: Label
    zone: Label
    vcpu: int = Field(ge=1, le=65_536)
    memory_mib: int = Field(ge=256)
    credentials: str
    kvm: Literal["metal", "nested", "proof", "none"] = "metal"
    price_per_hour: float | None = Field(None, ge=0, allow_inf_nan=False)
    protected: bool = False
    ca: Path | None = None

    @property
    def path(self) -> str:
        """The system's resource at its BMC."""
        return self.system if self.system.startswith("/") else f"{SYSTEMS}/{self.system}"


class Site(Strict):
    """The whole file. `ca` holds the certificates that BMCs are checked against (default: the system's)."""

    machines: tuple[Machine, ...] = Field(min_length=1)
    credentials: dict[str, Credentials]
    ca: Path | None = None
    boot: Literal["Pxe", "UefiHttp", "Hdd", "Cd"] = "Pxe"
    wipe: Literal["none", "boot"] = "none"
    currency: str = ""
    prices_as_of: date | None = None

    def machine(self, name: str) -> Machine | None:
        """The machine of that name."""
        return next((one for one in self.machines if one.name == name), None)

    def zones(self) -> tuple[str, ...]:
        """Every zone, in the order of the file."""
        return tuple(dict.fromkeys(one.zone for one in self.machines))

    def sizes(self) -> tuple[HostSize, ...]:
        """What can be ordered, in the order of the file."""
        as_of = datetime.combine(self.prices_as_of, time(), UTC) if self.prices_as_of else None
        first = {one.size: one for one in reversed(self.machines)}
        return tuple(
            HostSize(
                name=size,
                vcpu=first[size].vcpu,
                memory_mib=first[size].memory_mib,
                kvm=first[size].kvm,
                price_per_hour=first[size].price_per_hour,
                currency=self.currency if first[size].price_per_hour is not None else "",
                as_of=as_of if first[size].price_per_hour is not None else None,
                zones=tuple(dict.fromkeys(one.zone for one in self.machines if one.size == size)),
            )
            for size in dict.fromkeys(one.size for one in self.machines)
        )


def _clashes(site: Site) -> Iterator[tuple[int, str]]:
    """What is wrong between machines: the later one's index, and words."""
    names: set[str] = set()
    places: dict[tuple[str, str], str] = {}
    sizes: dict[str, Machine] = {}
    for index, one in enumerate(site.machines):
        if one.name in names:
            yield index, "this name is given twice"
        names.add(one.name)
        other = places.setdefault((one.bmc, one.path), one.name)
        if other != one.name:
            yield index, f"it is the same system at the same BMC as {other}"
        if one.credentials not in site.credentials:
            yield index, f"credentials: there are none of that name; known: {', '.join(site.credentials)}"
        if one.price_per_hour is not None and not (site.currency and site.prices_as_of):
            yield index, "price_per_hour: a price needs currency and prices_as_of at the top of the file"
        like = sizes.setdefault(one.size, one)
        if _shape(like) != _shape(one):
            yield index, f"size {one.size} has another vcpu, memory_mib, kvm or price_per_hour at {like.name}"


def _shape(one: Machine) -> tuple[object, ...]:
    return one.vcpu, one.memory_mib, one.kvm, one.price_per_hour


@dataclass(frozen=True, slots=True)
class _Told:
    """The file as plain values, with the line of each place."""

    value: object
    lines: dict[tuple[int | str, ...], int]


def load(file: Path) -> Site:
    """The inventory in a YAML file. Raises ProviderError (invalid, caller) naming line, machine and field."""
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as wrong:
        why = wrong.strerror if isinstance(wrong, OSError) else "it is not UTF-8 text"
        raise _refused(f"the inventory {file} cannot be read: {why}") from None
    tree, problems = read(text)
    if problems or tree is None:
        raise _refused("; ".join(f"{file}:{one.line}: {one.message}" for one in problems[:10]))
    told = _Told(None, {})
    told = _Told(_plain(tree, (), told.lines), told.lines)
    try:
        site = Site.model_validate(told.value)
    except ValidationError as wrong:
        lines = [_words(file, told, one["loc"], one["msg"]) for one in wrong.errors(include_input=False)]
        more = [f"and {len(lines) - 10} more"] if len(lines) > 10 else []
        raise _refused("; ".join(lines[:10] + more)) from None
    for index, words in _clashes(site):
        raise _refused(_words(file, told, ("machines", index), words))
    return _placed(site, file.absolute().parent)


def _refused(words: str) -> ProviderError:
    return ProviderError(ErrorClass.INVALID, words, code="inventory", blame=Blame.CALLER)


def _plain(node: Node, place: tuple[int | str, ...], lines: dict[tuple[int | str, ...], int]) -> object:
    lines[place] = node.line
    match node:
        case Scalar():
            return node.value
        case Mapping():
            return {key: _plain(value, (*place, key), lines) for key, (_, value) in node.entries.items()}
        case _:
            return [_plain(value, (*place, index), lines) for index, value in enumerate(node.items)]


def _words(file: Path, told: _Told, place: tuple[int | str, ...], what: str) -> str:
    known = place
    while known and known not in told.lines:
        known = known[:-1]
    match told.value, place:
        case {"machines": list(machines)}, ("machines", int(index), *rest) if index < len(machines):
            given = machines[index]
            name = given.get("name") if isinstance(given, dict) else None
            who = f"machine {shown(name)}" if isinstance(name, str) else f"machine {index + 1} of the list"
            where = [who, *map(str, rest)]
        case _:
            where = [shown(one) if isinstance(one, str) else str(one) for one in place]
    return ": ".join([f"{file}:{told.lines.get(known, 1)}", *where, what.removeprefix("Value error, ")])


def _placed(site: Site, folder: Path) -> Site:
    """Files are named from where the inventory lies."""

    def at(path: Path | None) -> Path | None:
        return path and folder / path

    def ref(one: Reference) -> Reference:
        return one.model_copy(update={"file": at(one.file)})

    credentials = {
        name: one.model_copy(update={"username": ref(one.username), "password": ref(one.password)})
        for name, one in site.credentials.items()
    }
    machines = tuple(one.model_copy(update={"ca": at(one.ca)}) for one in site.machines)
    return site.model_copy(update={"credentials": credentials, "machines": machines, "ca": at(site.ca)})
