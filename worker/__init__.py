"""Process entry points: they only compose what the other folders hold, and run it."""
