#!/bin/bash
# Node for the test of examples/typescript: Debian's own nodejs and npm, from apt's mirrors (18 on Debian 12).
# Nothing to do when node and npm are there; where they cannot be installed this says why, and that test is skipped.
set -euo pipefail

if command -v node >/dev/null && command -v npm >/dev/null; then exit 0; fi
skip() { echo "paddock: no node and npm for the test of examples/typescript, so it is skipped: $*"; exit 0; }
command -v apt-get >/dev/null || skip "this is not Debian; install Node 18 or newer your way"
[ "$(id -u)" = 0 ] || skip "run as root: apt-get install nodejs npm"

install() {
  timeout 600 env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends nodejs npm 2>&1 >/dev/null
}
echo "paddock: installing nodejs and npm, for the test of examples/typescript"
started=$SECONDS
install >/dev/null 2>&1 || {
  timeout 300 apt-get update -q >/dev/null 2>&1 || true
  words=$(install) || skip "apt-get: ${words##*$'\n'}"
}
echo "paddock: node $(node --version) and npm $(npm --version) ready in $((SECONDS - started)) s"
