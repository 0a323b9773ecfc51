"""Keeping the Temporal SDK's own log lines off a program's output."""

from temporalio.runtime import Runtime, TelemetryConfig


def quiet() -> None:
    """Silence the SDK's core, which logs to standard output; call it before the first connection of a program.

    What it would say arrives as an error of the call that failed. A runtime that is there already is left alone.
    """
    try:
        Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=None)))
    except RuntimeError:
        pass
