"""Process entry points: they only compose what the other rooms hold, and run it."""
