#!/bin/bash
# Node for the test of examples/typescript: Debian's own nodejs and npm, from apt's mirrors (18 on Debian 12).
# Nothing to do when node and npm are there; where they cannot be installed this says why, and that test is skipped.
set -euo pipefail
. "$(dirname "$0")/apt.sh"

if node --version >/dev/null 2>&1 && command -v npm >/dev/null; then exit 0; fi
without="no node and npm for the test of examples/typescript, which is skipped"
install_for_tests packaging/node.sh nodejs npm
