"""Temporal workflows; they import contracts and each other, and call activities by name."""
