"""The one way to Temporal that client, workers and tests share: a plugin and a connection."""
