"""Virtual machines on Azure: what a ground there needs, the sizes on offer, Azure's errors, and the provider."""

from providers.azure.ground import AzureGround
from providers.azure.provider import Azure

__all__ = ["Azure", "AzureGround"]
