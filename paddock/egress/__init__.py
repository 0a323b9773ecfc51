"""The fence: what the guest may reach, decided, recorded and only then done; cores take bytes and the time."""
