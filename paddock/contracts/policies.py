"""What `PolicyRollout` takes and answers: a document on its way into the control plane's store."""

from pydantic import Field

from paddock.contracts.base import Strict, Wire


class PolicyDocument(Strict):
    """A policy's text as its author wrote it, with the file's name for the words of an error."""

    text: str = Field(max_length=1 << 20)
    file: str = Field("", max_length=4096)
    author: str = Field("", max_length=128)


class PolicyApplied(Wire):
    """The revision that now answers to `name`; the same text applied again keeps its revision."""

    name: str
    revision: int
    digest: str
