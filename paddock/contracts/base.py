"""The two bases of every model that crosses a boundary."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A model that people or other programs write: unknown fields are refused, input values never echoed in errors."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)


class Wire(BaseModel):
    """A model that our own processes exchange: a newer peer may add fields, an older one ignores them."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, frozen=True)
