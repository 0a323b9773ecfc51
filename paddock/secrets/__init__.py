"""Secrets: the stores that hold them, and the broker that hands them to supervisors one use at a time."""

from paddock.secrets.store import Secret, SecretUnavailable

__all__ = ["Secret", "SecretUnavailable"]
