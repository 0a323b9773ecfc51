"""Documents that the tests of this room share."""

HEAD = "apiVersion: paddock/v1\nkind: Policy\nmetadata: {name: fixer}\nspec:\n"
RULE = """  network:
    - id: api-read
      to: {host: api.example.com, port: 443, protocol: http}
      allow: [{methods: [GET], path: /repos/acme/**}]
      deny: [{methods: ["*"], path: /repos/*/settings/**}]
"""
SECRET = """  secrets:
    - {ref: vcs-token, rule: api-read, in: header, as: bearer}
"""
WHOLE = HEAD + RULE + SECRET


def rule(id_: str, host: str, port: int = 443, protocol: str = "http", more: str = "") -> str:
    """One network rule as flow text; `more` follows its target."""
    return (
        f"    - {{id: {id_}, to: {{host: {host!r}, port: {port}, protocol: {protocol}}}{', ' if more else ''}{more}}}\n"
    )


def http(id_: str, host: str, *, allow: str = "/**", methods: str = "GET", deny: str = "", port: int = 443) -> str:
    """One inspected rule with one allowance and perhaps one denial of every method."""
    more = f"allow: [{{methods: [{methods}], path: {allow!r}}}]"
    if deny:
        more += f", deny: [{{methods: ['*'], path: {deny!r}}}]"
    return rule(id_, host, port, "http", more)


def policy(*rules: str, secrets: str = "") -> str:
    """A whole document of these rules."""
    return HEAD + "  network:\n" + "".join(rules) + secrets
