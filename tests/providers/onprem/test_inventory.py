"""Inventory files: what is read from a good one, and the words for each bad one, with line and machine."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.contract import ErrorClass, ProviderError
from providers.onprem.inventory import Reference, load

GOOD = """\
ca: certificates/bmc.pem
currency: EUR
prices_as_of: 2026-11-01
credentials:
  racks:
    username: {env: BMC_USER}
    password: {file: secrets/bmc}
machines:
  - name: r1u1
    bmc: https://10.0.0.11
    system: 437XR1138R2
    size: metal-32
    zone: rack1
    vcpu: 32
    memory_mib: 131072
    credentials: racks
    price_per_hour: 0.84
  - name: r2u1
    bmc: https://[fd00::11]:8443/
    system: /redfish/v1/Systems/1
    size: metal-32
    zone: rack2
    vcpu: 32
    memory_mib: 131072
    credentials: racks
    price_per_hour: 0.84
    protected: true
"""


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "inventory.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def refused(folder: Path, text: str | bytes) -> str:
    with pytest.raises(ProviderError) as wrong:
        load(written(folder, text))
    assert wrong.value.kind is ErrorClass.INVALID
    assert wrong.value.__cause__ is None
    return str(wrong.value).replace(f"{folder}/", "")


def test_a_good_file(tmp_path: Path) -> None:
    site = load(written(tmp_path, GOOD))
    one, two = site.machines
    assert (one.path, two.path) == ("/redfish/v1/Systems/437XR1138R2", "/redfish/v1/Systems/1")
    assert two.bmc == "https://[fd00::11]:8443"
    assert site.ca == tmp_path / "certificates/bmc.pem"
    assert site.credentials["racks"].password.file == tmp_path / "secrets/bmc"
    assert (one.protected, two.protected, site.wipe, site.boot) == (False, True, "none", "Pxe")
    (size,) = site.sizes()
    assert (size.name, size.vcpu, size.memory_mib, size.kvm) == ("metal-32", 32, 131072, "metal")
    assert (size.price_per_hour, size.currency, size.zones) == (0.84, "EUR", ("rack1", "rack2"))
    assert size.as_of is not None
    assert size.as_of.isoformat() == "2026-11-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("vcpu: 32", "vcpu: many", "inventory.yaml:14: machine 'r1u1': vcpu: Input should be a valid integer"),
        ("vcpu: 32", "vcpu: 0", "inventory.yaml:14: machine 'r1u1': vcpu: "),
        ("vcpu: 32", "cpus: 32", "inventory.yaml:14: machine 'r1u1': cpus: Extra inputs are not permitted"),
        ("    zone: rack2\n", "", "inventory.yaml:18: machine 'r2u1': zone: Field required"),
        ("name: r2u1", "name: R2_U1", "inventory.yaml:18: machine 'R2_U1': name: "),
        ("name: r2u1", "name: ../../etc", "inventory.yaml:18: machine '../../etc': name: "),
        ("- name: r2u1\n    bmc", "- bmc", "inventory.yaml:18: machine 2 of the list: name: Field required"),
        ("name: r2u1", "name: r1u1", "inventory.yaml:18: machine 'r1u1': this name is given twice"),
        ("https://10.0.0.11", "http://10.0.0.11", "inventory.yaml:10: machine 'r1u1': bmc: https is needed"),
        ("https://10.0.0.11", "10.0.0.11", "machine 'r1u1': bmc: an address like https://10.0.0.11 is needed"),
        ("https://10.0.0.11", "https://[::1", "machine 'r1u1': bmc: an address like"),
        ("https://10.0.0.11", "https://10.0.0.11:99999", "machine 'r1u1': bmc: an address like"),
        ("https://10.0.0.11", "https://a/redfish", "machine 'r1u1': bmc: an address like"),
        ("437XR1138R2", "//10.0.0.66/x", "inventory.yaml:11: machine 'r1u1': system: a system's id"),
        ("437XR1138R2", "/redfish/v1/../x", "machine 'r1u1': system: a system's id"),
        ("437XR1138R2", "/etc", "machine 'r1u1': system: a system's id"),
        ("credentials: racks", "credentials: other", "machine 'r1u1': credentials: there are none of that name; known"),
        ("  - name: r2u1\n", "  - hello\n  - name: r2u1\n", "inventory.yaml:18: machine 2 of the list: "),
        ("zone: rack2", "zone: &a rack2", "inventory.yaml:22: YAML anchors are not allowed"),
        ("zone: rack2", "zone: 'x\x07y'", "not YAML"),
        ("zone: rack2", "zone: [rack2]", "inventory.yaml:22: machine 'r2u1': zone: "),
        ("zone: rack2", "zone: rack2\n    zone: rack1", "inventory.yaml:23: 'zone' is given twice"),
        (
            "price_per_hour: 0.84\n    p",
            "price_per_hour: .inf\n    p",
            "inventory.yaml:26: machine 'r2u1': price_per_hour",
        ),
        ("price_per_hour: 0.84\n    p", "price_per_hour: 1\n    p", "size metal-32 has another vcpu, memory_mib, kvm"),
        ("currency: EUR\n", "", "inventory.yaml:8: machine 'r1u1': price_per_hour: a price needs currency"),
        ("https://[fd00::11]:8443/", "https://10.0.0.11", ""),
        ("ca: certificates/bmc.pem", "verify: false", "inventory.yaml:1: 'verify': Extra inputs are not permitted"),
        ("{env: BMC_USER}", "{env: 'BMC USER'}", "'credentials': 'racks': 'username': 'env': "),
        ("{env: BMC_USER}", "{env: A, file: b}", "inventory.yaml:6: 'credentials': 'racks': 'username': give {env"),
    ],
)
def test_a_bad_file_gets_line_machine_and_field(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in GOOD
    if words:
        assert words in refused(tmp_path, GOOD.replace(old, new, 1))
    else:  # the same address is fine while the system is another one
        load(written(tmp_path, GOOD.replace(old, new, 1)))


def test_the_same_system_twice_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("https://[fd00::11]:8443/", "https://10.0.0.11").replace("/Systems/1", "/Systems/437XR1138R2")
    assert "machine 'r2u1': it is the same system at the same BMC as r1u1" in refused(tmp_path, text)


@pytest.mark.parametrize("text", ["", "machines: []", "[]", "x", "machines: {}", b"\xff\xfe", "- " * 9, "a: *b", "\0"])
def test_what_is_no_inventory_is_refused_in_words(tmp_path: Path, text: str | bytes) -> None:
    assert refused(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match=r"inventory .*none\.yaml cannot be read: No such file"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "place", ["password: hunter2-secret", "password: [hunter2-secret]", "password: {text: hunter2-secret}"]
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(tmp_path: Path, place: str) -> None:
    words = refused(tmp_path, GOOD.replace("password: {file: secrets/bmc}", place))
    assert "inventory.yaml:7: 'credentials': 'racks': 'password'" in words
    assert "hunter2" not in words


def test_a_secret_in_an_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    words = refused(tmp_path, GOOD.replace("https://10.0.0.11", "https://root:hunter2@10.0.0.11"))
    assert "machine 'r1u1': bmc: an address holds no user" in words
    assert "hunter2" not in words


def test_many_problems_are_bounded(tmp_path: Path) -> None:
    machine = "  - {name: m%d, vcpu: x}\n"
    words = refused(tmp_path, GOOD + "".join(machine % number for number in range(200)))
    assert len(words) < 4000
    assert " more" in words


@given(st.text(max_size=200))
def test_no_text_does_more_than_be_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    try:
        load(written(tmp_path_factory.getbasetemp(), text.encode(errors="surrogatepass")))
    except ProviderError as wrong:
        assert wrong.kind is ErrorClass.INVALID


# Secrets


def test_a_reference_reads_anew_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_text("one\n")
    assert Reference(file=file).read("it") == "one"
    file.write_text("two")
    assert Reference(file=file).read("it") == "two"
    monkeypatch.setenv("BMC_PASSWORD", "three")
    assert Reference(env="BMC_PASSWORD").read("it") == "three"


def test_a_missing_secret_names_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NONE", raising=False)
    (tmp_path / "binary").write_bytes(b"\xff\xff")
    for reference, words in (
        (Reference(env="NONE"), "r1u1's password is empty in environment variable NONE"),
        (Reference(file=tmp_path / "none"), f"r1u1's password cannot be read from file {tmp_path}/none: No such file"),
        (Reference(file=tmp_path / "binary"), "it is not text"),
    ):
        with pytest.raises(ProviderError) as wrong:
            reference.read("r1u1's password")
        assert words in str(wrong.value)
        assert wrong.value.kind is ErrorClass.AUTH
