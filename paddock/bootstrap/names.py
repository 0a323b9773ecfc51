"""How the store and a host's certificate name one machine of a host."""


def machine_name(host: str, attempt: int) -> str:
    """One machine of a host; attempt 0 is one that was joined by hand."""
    return f"{host}.{attempt}"


def machine_uri(environment: str, host: str, attempt: int) -> str:
    """The URI in its certificate."""
    return f"spiffe://paddock/{environment}/host/{machine_name(host, attempt)}"
