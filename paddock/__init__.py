"""Paddock: AI agents in supervised microVMs, with people in charge of them."""

__version__ = "0.1.0"
