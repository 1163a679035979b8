# What every script here shares: it starts in the checkout's root, and whatever a tool drops into the temporary
# folder or pip's cache stays out of the user's home and is gone afterwards. Sourced; does nothing by itself.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export PIP_CACHE_DIR="$PWD/.cache/pip" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
python="$PWD/.venv/bin/python"

say() { printf '== %s\n' "$*" >&2; }
fail() { printf 'stillwarm: %s\n' "$*" >&2; exit 1; }

# A temporary folder of our own, removed on every way out. In /tmp because a socket's path must stay short.
private_tmp() {
  TMPDIR=$(mktemp -d /tmp/stillwarm.XXXXXX)
  export TMPDIR
  trap 'rm -rf -- "$TMPDIR"' EXIT
}

# Says whether an interpreter can build and run us: CPython >= 3.10 with venv, pip's bootstrap and headers.
usable_python() {
  "$1" - >/dev/null 2>&1 <<'PY'
import ensurepip, os, sys, sysconfig, venv
ok = sys.implementation.name == "cpython" and sys.version_info >= (3, 10)
sys.exit(not (ok and os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))))
PY
}

# One list of pyproject.toml, an entry a line: requirements <python> build-system.requires.
requirements() {
  "$1" - "$2" <<'PY'
import sys
from pip._vendor import tomli
found = tomli.load(open("pyproject.toml", "rb"))
for name in sys.argv[1].split("."):
    found = found[name]
print(*found, sep="\n")
PY
}

# What pyproject.toml needs to build, so that builds can go without isolation, which is quicker and rebuilds only changes.
install_build_requirements() {
  local requires
  mapfile -t requires < <(requirements "$1" build-system.requires)
  "$1" -m pip install -q "${requires[@]}"
}

# The C++ tests, a process per core: cpp_tests <program> [prefix...]. (xargs, as Ctrl-C does not reach what runs behind `&`.)
cpp_tests() {
  local program=$1
  shift
  seq 0 $(($(nproc) - 1)) | xargs -P 0 -I '{}' env GTEST_TOTAL_SHARDS="$(nproc)" GTEST_SHARD_INDEX='{}' "$@" "$program" --gtest_brief=1
}
