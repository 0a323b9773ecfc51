"""Emulated clouds: servers on loopback that speak each cloud's own API to its own SDK, and misbehave on demand."""
