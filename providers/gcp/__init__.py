"""Hosts at Google Cloud, on its own SDK, whose import takes seconds and 160 MB: only a worker that needs it does so."""

from providers.gcp.ground import GcpGround
from providers.gcp.provider import Gcp

__all__ = ["Gcp", "GcpGround"]
