# Sourced by browser.sh and node.sh: installs Debian packages that only some tests need.
# Whatever stands in the way is said in one line on standard output, and is no error: those tests are then skipped.

# skip WORDS...: says why nothing is installed, and ends the script well.
skip() {
  echo "paddock: $without: $*"
  exit 0
}

# run_apt ARGUMENTS...: one run of apt-get; `said` is its first error, its first warning, or how it ended without one.
run_apt() {
  local words code=0
  # Another apt-get, such as that of `paddock setup`, is waited for.
  words=$'\n'$(LC_ALL=C DEBIAN_FRONTEND=noninteractive timeout 600 \
    apt-get -q -o DPkg::Lock::Timeout=120 "$@" 2>&1 >/dev/null </dev/null) || code=$?
  said=""
  case $words in
    *$'\nE: '*) said=${words#*$'\nE: '} ;;
    *$'\nW: '*) said=${words#*$'\nW: '} ;;
  esac
  said=${said%%$'\n'*}
  if [ $code = 124 ]; then said="not over after 600 s"; fi
  if [ $code != 0 ]; then said=${said:-"exit code $code"}; fi
  return $code
}

# install_for_tests SCRIPT PACKAGE...: `without` says what a lack of them means.
install_for_tests() {
  local script=$1 started=$SECONDS lists
  shift
  command -v apt-get >/dev/null || skip "this is not Debian; install $* your way"
  if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null; then skip "to install $*: sudo bash $script"; fi
    skip "to install $*, as root: bash $script"
  fi
  echo "paddock: installing $*"
  # Lists that are empty or old are read only when they must be; what is wrong with a mirror shows there first.
  if ! run_apt install -y --no-install-recommends "$@"; then
    run_apt update || true
    lists=$said
    run_apt install -y --no-install-recommends "$@" || skip "apt-get install: $said${lists:+ (apt-get update: $lists)}"
  fi
  echo "paddock: installed $* in $((SECONDS - started)) s"
}
