"""Machines of one's own: an inventory, claims with fencing numbers, and their BMCs through Redfish."""

from providers.onprem.provider import OnPrem, OnPremGround

__all__ = ["OnPrem", "OnPremGround"]
