"""A text that no log, error or repr shows."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Hidden:
    """A token, key or signed identity; only `value` gives it."""

    value: str = field(repr=False)
