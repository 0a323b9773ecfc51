"""Evidence: canonical events in chains, signed checkpoints, the recorder that keeps them, and offline verification."""

from paddock.audit.event import AuditUnavailable

__all__ = ["AuditUnavailable"]
