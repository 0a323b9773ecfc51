#!/bin/bash
# The browser of the tests that go through the Temporal UI: Debian's headless Chromium, from apt's own mirrors.
# Nothing to do when one is there; where it cannot be installed this says why, and those tests are skipped.
set -euo pipefail

for name in chromium chromium-browser google-chrome; do
  if command -v "$name" >/dev/null; then exit 0; fi
done
skip() { echo "paddock: no browser for the tests of the Temporal UI, so they are skipped: $*"; exit 0; }
command -v apt-get >/dev/null || skip "this is not Debian; install Chromium your way"
[ "$(id -u)" = 0 ] || skip "run as root: apt-get install chromium"

install() {
  # fonts: without one, Chromium draws boxes instead of letters.
  timeout 600 env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends chromium fonts-dejavu-core 2>&1 >/dev/null
}
echo "paddock: installing chromium, the browser of the tests of the Temporal UI"
started=$SECONDS
install >/dev/null 2>&1 || { timeout 300 apt-get update -q >/dev/null 2>&1 || true; words=$(install) || skip "apt-get: ${words##*$'\n'}"; }
echo "paddock: $(chromium --version 2>/dev/null || echo chromium) ready in $((SECONDS - started)) s"
