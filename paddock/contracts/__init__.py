"""What crosses a boundary: models, names and errors; imports nothing else of ours."""
