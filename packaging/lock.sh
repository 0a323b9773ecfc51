#!/bin/bash
# Compiles pyproject.toml into requirements/*.txt: every version pinned, every file by hash, no index address.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/python -m venv "$work/uv"
"$work/uv/bin/pip" install -q uv
compile() {
  "$work/uv/bin/uv" pip compile pyproject.toml "$@" --universal --python-version 3.11 --generate-hashes \
    --no-annotate --no-header --no-emit-index-url --no-emit-find-links --no-emit-package paddock --quiet
}
compile --extra dev -o requirements/dev.txt
compile --extra host -c requirements/dev.txt -o requirements/host.txt
