"""The relay joins a caller's stream to a host's one outgoing connection, and keeps nothing."""
