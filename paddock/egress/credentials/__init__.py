"""Putting a secret into a request at the fence, and keeping it out of the answer."""
