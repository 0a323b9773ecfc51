"""Real servers on loopback for tests: they log what they received and answer as badly as they are told to."""
