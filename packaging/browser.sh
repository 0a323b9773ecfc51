#!/bin/bash
# The browser of the tests that go through the Temporal UI: Debian's headless Chromium, from apt's own mirrors.
# Nothing to do when one is there and starts; where it cannot be installed this says why, and those tests are skipped.
set -euo pipefail
. "$(dirname "$0")/apt.sh"

for name in chromium chromium-browser google-chrome; do
  if "$name" --version >/dev/null 2>&1; then exit 0; fi
done
without="no browser for the tests of the Temporal UI, which are skipped"
# fonts: without one, Chromium draws boxes instead of letters.
install_for_tests packaging/browser.sh chromium fonts-dejavu-core
