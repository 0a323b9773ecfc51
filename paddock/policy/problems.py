"""What is wrong with a document: every problem with its line and column, in one error."""

from dataclasses import dataclass

from paddock.contracts.errors import ErrorKind, PaddockError

MAX_PROBLEMS = 100


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One fault of a document; line and column count from 1."""

    line: int
    column: int
    message: str


class PolicyError(PaddockError):
    """A document that is refused: `problems` holds all its faults in the order of the document (the first 100)."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems: tuple[Problem, ...] = tuple(sorted(set(problems)))[:MAX_PROBLEMS]
        lines = [f"{file}:{p.line}:{p.column}: {p.message}" for p in self.problems]
        super().__init__(
            ErrorKind.BAD_POLICY,
            "\n".join(lines),
            remedy="Correct the document; `paddock policy check FILE` shows all its problems without applying it.",
        )
