"""`SandboxSpec`, the one argument of the `Sandbox` workflow, and what it holds."""

from typing import Annotated, Final

from pydantic import Field, StringConstraints, field_validator, model_validator

from paddock.contracts.base import Strict
from paddock.contracts.ids import Digest, EnvironmentName

API_VERSION: Final = "v1"
"""The contract of callers: what may be asked of `Sandbox`, and what it answers. Within a version it only grows."""
API_VERSIONS: Final = (API_VERSION,)

GuestPath = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
PublicKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{43}=$")]
Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class Shape(Strict):
    """Size of a sandbox: virtual processors, memory, and the quota of its writable layer."""

    vcpu: int = Field(1, ge=1, le=16)
    memory_mib: int = Field(256, ge=128, le=65536)
    disk_mib: int = Field(1024, ge=64, le=1 << 20)


class InputRef(Strict):
    """A tar of the caller's, named by its SHA-256, unpacked at `path` in the guest before the task starts."""

    digest: Digest
    bytes: int = Field(ge=0)
    path: GuestPath = "/work"

    @field_validator("path")
    @classmethod
    def _below_work(cls, path: str) -> str:
        if not path.startswith("/") or ".." in path.split("/") or not f"{path}/".startswith(("/work/", "/tmp/")):
            raise ValueError("an absolute path at or below /work or /tmp, without '..'")
        return path


class OutputGlob(Strict):
    """Files to bring back: a glob below /work, and the most bytes it may take."""

    glob: GuestPath
    max_bytes: int = Field(64 << 20, ge=1, le=8 << 30)

    @field_validator("glob")
    @classmethod
    def _relative(cls, glob: str) -> str:
        if glob.startswith("/") or ".." in glob.split("/"):
            raise ValueError("a glob relative to /work, without '..'")
        return glob


class TaskSpec(Strict):
    """One run of one program in a sandbox."""

    argv: tuple[str, ...] = Field((), max_length=4096)
    agent: str | None = Field(None, max_length=64)
    prompt: str | None = Field(None, max_length=1 << 16)
    env: dict[str, str] = Field(default_factory=dict, max_length=256)
    cwd: GuestPath = "/work"
    timeout_s: int = Field(3600, ge=1, le=7 * 86400)
    tty: bool = False
    output_limit_bytes: int = Field(64 << 20, ge=1, le=16 << 30)
    stdin: InputRef | None = None
    inputs: tuple[InputRef, ...] = Field((), max_length=64)

    @model_validator(mode="after")
    def _something_to_run(self) -> "TaskSpec":
        if self.agent or self.prompt:
            raise ValueError("agent, prompt: not in this version; start the agent by argv, as examples/demo does")
        if not self.argv or not self.argv[0] or any("\0" in a for a in self.argv):
            raise ValueError("argv: the program's name is empty or an argument holds a NUL byte")
        if self.tty:
            raise ValueError("tty: not in this version")
        return self


class SandboxSpec(Strict):
    """What a caller wants; every field has a default, so `{}` starts a working sandbox."""

    api_version: str = Field(API_VERSION, json_schema_extra={"enum": list(API_VERSIONS)})
    image: str = Field("base", min_length=1, max_length=255)
    environment: EnvironmentName = "local"
    shape: Shape = Shape()
    policy: str = Field("deny-all", pattern=r"^[a-z0-9][a-z0-9._-]{0,62}(@[0-9]{1,9})?$")
    task: TaskSpec | None = None
    lifetime_s: int = Field(3600, ge=30, le=30 * 86400)
    idle_s: int = Field(1800, ge=30, le=30 * 86400)
    inputs: tuple[InputRef, ...] = Field((), max_length=64)
    outputs: tuple[OutputGlob, ...] = Field((), max_length=64)
    project: Label = "default"
    owner: str = Field("", max_length=128)
    labels: dict[Label, str] = Field(default_factory=dict, max_length=16)
    place_timeout_s: int = Field(300, ge=1, le=86400)
    priority: int = Field(3, ge=1, le=5)
    caller_key: PublicKey | None = None

    @field_validator("api_version")
    @classmethod
    def _spoken_here(cls, version: str) -> str:
        if version not in API_VERSIONS:
            raise ValueError(f"this Paddock speaks {', '.join(API_VERSIONS)}; write one of those, or leave it out")
        return version
