"""Prints the user data that makes a host image: `python infra/image/bake.py > user-data`; reads only its own folder."""

import base64
import gzip
import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def render() -> str:
    """bake.template.yaml with each `@file@` put in: as a quoted string, or packed where the template says so."""
    lines: list[str] = []
    for line in (HERE / "bake.template.yaml").read_text().splitlines():
        found = re.fullmatch(r"( +content: )@([\w.-]+)@", line)
        if not found:
            lines.append(line)
            continue
        content = (HERE / found[2]).read_bytes()
        if lines[-1].endswith("encoding: gz+b64"):
            lines.append(found[1] + base64.b64encode(gzip.compress(content, mtime=0)).decode())
        else:
            lines.append(found[1] + json.dumps(content.decode(), ensure_ascii=False))  # a JSON string is YAML too
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
