"""Real provider schemas for Terraform without its registry, read from the TypeScript bindings that npm carries.

Each binding is generated from its provider's own schema, and its source map holds the TypeScript with every attribute's
flags, so names, types, nesting, required, optional and computed are the provider's. What a binding does not say, and
what therefore stays unchecked here: allowed values, conflicts between arguments, and a block's exact maximum above one.
"""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

Block = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Binding:
    """An npm package, pinned by its tarball's digest, and the provider version that it was generated from."""

    provider: str
    package: str
    version: str
    sha512: str
    provider_version: str


BINDINGS: Final = (
    Binding(
        "aws",
        "@cdktn/provider-aws",
        "25.7.0",
        "13f9e1bb4c95644e265cc8083ee23cb4416dd411312e403b0118e285d1befc799f0dfccbafe384177764151bc8ea0951b77d25aeb05640bc17a82241c5c9b252",
        "6.66.0",
    ),
    Binding(
        "azurerm",
        "@cdktn/provider-azurerm",
        "16.1.0",
        "02bac72e887f79b998db2ca6288c61db02f81d6aa0beb2b810e5437db3a7356f3fa8a03affe12320c05369c7c0f42dad52ae73801a0dcc8988672a8e893fc962",
        "4.73.0",
    ),
    Binding(
        "google",
        "@cdktf/provider-google",
        "16.12.1",
        "2aa340ff9462153d3baf43d267aff4edc276cc449481b8f525c8558f6d620450595546c3fb9efcc40fe4f1eabfaf471bc8480b9a0f5e616795b256986a1e0309",
        "6.50.0",
    ),
)
FETCH_S: Final = 120.0
_PRIMITIVES: Final = {"string": "string", "number": "number", "boolean": "bool", "any": "dynamic"}
_FLAGS: Final = re.compile(
    r"^ *// (\w+) - computed: (true|false), optional: (true|false), required: (true|false)$", re.M
)
_SET: Final = re.compile(
    r"^ +(\w+): \{\n +value: [^\n]*\n +isBlock: (true|false),\n +type: \"(\w+)\",\n +storageClassType: \"(\w+)\",", re.M
)
_GETTERS: Final = {
    "String": "string",
    "Number": "number",
    "Boolean": "bool",
    "List": ["list", "string"],
    "NumberList": ["list", "number"],
    "StringMap": ["map", "string"],
    "NumberMap": ["map", "number"],
    "BooleanMap": ["map", "bool"],
}


class NotToBeHad(Exception):
    """A binding cannot be fetched on this machine; the words say why."""


def used(folder: Path) -> frozenset[str]:
    """The types of all resources (`aws_vpc`) and data sources (`data.aws_ami`) in a folder's .tf files."""
    found = set()
    for file in folder.rglob("*.tf"):
        for kind, name in re.findall(r'^(resource|data) "(\w+)"', file.read_text(), re.M):
            found.add(name if kind == "resource" else f"data.{name}")
    return frozenset(found)


def build(binding: Binding, types: frozenset[str], cache: Path) -> Path:
    """The file with the schema of those `types` that are this provider's, made once. Raises NotToBeHad.

    A type that the binding does not know is left out: Terraform's own words about it are the better error.
    """
    wanted = {name for name in types if name.removeprefix("data.").split("_")[0] == binding.provider}
    key = hashlib.sha256(repr((binding, sorted(wanted))).encode() + Path(__file__).read_bytes()).hexdigest()[:16]
    file = cache / f"{binding.provider}-{binding.provider_version}-{key}.json"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            sources = dict(_sources(_fetch(binding, Path(scratch)), {_folder(name): name for name in wanted}))
            fresh = Path(scratch) / file.name
            fresh.write_text(json.dumps(_schema(binding, sources), indent=1, sort_keys=True))
            fresh.replace(file)
    return file


def _folder(name: str) -> str:
    """Where a binding keeps a type: `aws_iam_role` in iam-role, `data.aws_ami` in data-aws-ami."""
    words = name.removeprefix("data.").split("_")
    return "-".join(["data", *words] if name.startswith("data.") else words[1:])


def _fetch(binding: Binding, where: Path) -> Path:
    if not (npm := shutil.which("npm")):
        raise NotToBeHad("npm is not installed (bash packaging/node.sh installs it on Debian)")
    spec = f"{binding.package}@{binding.version}"
    try:
        argv = [npm, "pack", "--silent", "--ignore-scripts", spec]
        done = subprocess.run(
            argv, cwd=where, capture_output=True, text=True, timeout=FETCH_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise NotToBeHad(f"npm pack {spec} took longer than {FETCH_S:.0f} s") from None
    if done.returncode != 0:
        raise NotToBeHad(f"npm pack {spec} failed: {(done.stderr or done.stdout).strip()[-300:]}")
    file = where / done.stdout.strip().splitlines()[-1]
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha512").hexdigest()
    if found != binding.sha512:
        raise ValueError(f"{spec} has the digest {found}, and {binding.sha512} is pinned")
    return file


def _sources(tarball: Path, folders: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Terraform's name and the TypeScript of each wanted type, and of `provider`."""
    wanted = {f"package/lib/{folder}/index.js": name for folder, name in {**folders, "provider": "provider"}.items()}
    with tarfile.open(tarball, "r|gz") as archive:
        for member in archive:
            if (name := wanted.get(member.name)) and (opened := archive.extractfile(member)):
                found = re.search(rb"sourceMappingURL=data:application/json;base64,(\S+)", opened.read())
                if not found:
                    raise ValueError(f"{member.name} in {tarball.name} has no source map")
                yield name, json.loads(base64.b64decode(found[1]))["sourcesContent"][0]


def _schema(binding: Binding, sources: Mapping[str, str]) -> dict[str, Any]:
    version = f"providers/hashicorp/{binding.provider}/{binding.provider_version}/"
    if version not in sources["provider"]:
        raise ValueError(f"{binding.package}@{binding.version} was not made from version {binding.provider_version}")
    made = {name: _Source(text).block() for name, text in sources.items()}
    return {
        "provider": made["provider"],
        "resources": {n: b for n, b in made.items() if n != "provider" and not n.startswith("data.")},
        "data": {n.removeprefix("data."): b for n, b in made.items() if n.startswith("data.")},
    }


class _Source:
    """One type's TypeScript, taken apart by its declarations."""

    def __init__(self, text: str) -> None:
        classes = re.findall(r"^export class (\w+) extends \w+\.(\w+) \{\n(.*?)^\}", text, re.M | re.S)
        self.bodies = {name: body for name, _, body in classes}
        [self.main] = [
            n for n, base, _ in classes if base in {"TerraformResource", "TerraformDataSource", "TerraformProvider"}
        ]
        setters = re.findall(r"^export function (\w+)ToHclTerraform\(.*?\n(.*?)^\}", text, re.M | re.S)
        self.setters = {name.lower(): body for name, body in setters}
        interfaces = re.findall(r"^export interface (\w+)[^{\n]*\{\n(.*?)^\}", text, re.M | re.S)
        self.interfaces = dict(interfaces)

    def block(self) -> Block:
        body = self.bodies[self.main]
        return self._block(body, body)

    def _block(self, setter: str, body: str) -> Block:
        settable = {name: (block == "true", kind, stored) for name, block, kind, stored in _SET.findall(setter)}
        made: Block = {"attributes": {}, "blocks": {}}
        for name, computed, optional, required in _FLAGS.findall(body):
            flags = {"computed": computed == "true", "optional": optional == "true", "required": required == "true"}
            is_block, kind, stored = settable.get(name, (False, "", ""))
            if is_block:
                made["blocks"][name] = self._nested(name, kind, stored, body, flags["required"])
            else:
                of = _type(kind, stored) if kind else self._read(name, body)
                made["attributes"][name] = {"type": of, **{flag: True for flag, said in flags.items() if said}}
        return made

    def _nested(self, name: str, kind: str, stored: str, body: str, required: bool) -> Block:
        alone = re.search(rf'new (\w+)OutputReference\(this, "{name}"', body) is not None
        struct = stored.removesuffix("List").removesuffix("Map")
        setter = self.setters[struct.lower()]
        inner = self._block(setter, self.bodies.get(f"{struct}OutputReference") or self._flags(setter, struct))
        if kind == "struct":
            return {"nesting": "single", "block": inner, "min": 0, "max": 0}
        return {"nesting": kind, "block": inner, "min": int(required), "max": int(alone)}

    def _flags(self, setter: str, struct: str) -> str:
        """A provider's own blocks are only written, and have no class: their interface says what is required."""
        required = set(re.findall(r"^ +readonly (\w+): ", self.interfaces[struct], re.M))
        said = []
        for name, *_ in _SET.findall(setter):
            first, *rest = name.split("_")
            must = first + "".join(word.title() for word in rest) in required
            said.append(
                f"// {name} - computed: false, optional: {str(not must).lower()}, required: {str(must).lower()}"
            )
        return "\n".join(said)

    def _read(self, name: str, body: str) -> Any:
        """Terraform's type of an attribute that is only read."""
        if found := re.search(rf"this\.get(\w+)Attribute\('{name}'\)", body):
            return _GETTERS.get(found[1], "dynamic")
        if found := re.search(rf'new \w+\.(String|Number|Boolean)Map\(this, "{name}"', body):
            return ["map", _PRIMITIVES[found[1].lower()]]
        if found := re.search(rf'new (\w+)List\(this, "{name}", (true|false)\)', body):
            inner = self.bodies.get(f"{found[1]}OutputReference", "")
            fields = {one: self._read(one, inner) for one, *_ in _FLAGS.findall(inner)}
            return ["set" if found[2] == "true" else "list", ["object", fields]]
        return "dynamic"


def _type(kind: str, stored: str) -> Any:
    """Terraform's type of an attribute that can be set."""
    if kind == "simple":
        return _PRIMITIVES[stored]
    base, container = re.fullmatch(r"(string|number|boolean|any)(ListList|MapList|List|Map)", stored).groups()  # type: ignore[union-attr]
    element: Any = _PRIMITIVES[base]
    if container.endswith("List") and container != "List":
        element = [container.removesuffix("List").lower(), element]
    return [kind, element]


def names(block: Block) -> Iterable[str]:
    """Every attribute and block in a block, with dots between."""
    yield from block["attributes"]
    for name, nested in block["blocks"].items():
        yield name
        yield from (f"{name}.{inner}" for inner in names(nested["block"]))
