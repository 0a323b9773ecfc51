#!/bin/bash
# Makes .venv: a Python of 3.11 or newer, the hashed requirements, and this repository in editable form.
# Does nothing when neither the requirements nor the project file changed since the last time.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
stamp=$venv/paddock-stamp
wanted=$(cat requirements/dev.txt pyproject.toml packaging/venv.sh | sha256sum | cut -d' ' -f1)
if [ -x $venv/bin/paddock ] && [ "$(cat $stamp 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# `import ensurepip` alone is not enough on Debian: the module exists, its wheels come with python3-venv.
can_venv() { "$1" -c 'import ensurepip, venv; ensurepip.version()' >/dev/null 2>&1; }

find_python() {
  local fallback="" name path
  for name in ${PYTHON:-} python3.11 python3.12 python3.13 python3.14 python3; do
    path=$(command -v "$name" 2>/dev/null) || continue
    new_enough "$path" || continue
    if can_venv "$path"; then echo "$path"; return; fi
    fallback=${fallback:-$path}
  done
  echo "$fallback"
}

# Installs Debian packages: at once as root, after a question with sudo on a terminal, else says what to do and ends with 2.
apt_install() {
  local sudo=()
  if ! command -v apt-get >/dev/null; then
    echo "paddock: needs $* (this is not Debian: install them your way, then run make again)" >&2; exit 2
  fi
  if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null || [ ! -t 0 ]; then
      echo "paddock: needs the package(s) $*: run as root: apt-get install $*" >&2; exit 2
    fi
    read -r -p "paddock: install $* with sudo? [Y/n] " answer
    case "$answer" in [nN]*) echo "paddock: nothing installed" >&2; exit 2 ;; esac
    sudo=(sudo)
  fi
  echo "paddock: installing $*"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >/dev/null 2>&1 ||
    { "${sudo[@]}" apt-get update -q >/dev/null &&
      "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >/dev/null; }
}

python=$(find_python)
if [ -z "$python" ]; then
  apt_install python3 python3-venv
  python=$(find_python)
fi
if [ -z "$python" ]; then
  echo "paddock: no Python of 3.11 or newer found (looked for python3.11 to python3.14 and python3 on PATH);" >&2
  echo "         install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2
  exit 2
fi
if ! can_venv "$python"; then
  apt_install python3-venv
  can_venv "$python" || { echo "paddock: $python cannot make virtual environments (module venv or ensurepip is missing)" >&2; exit 2; }
fi

if ! $venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
  echo "paddock: making $venv with $("$python" --version)"
  rm -rf $venv
  "$python" -m venv $venv
fi
started=$SECONDS
echo "paddock: installing the Python requirements, each checked by its hash"
$venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/dev.txt
$venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
echo "$wanted" > $stamp
echo "paddock: Python ready in $((SECONDS - started)) s"
