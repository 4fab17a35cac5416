#!/bin/sh
# Make the project's Python environment: environment.sh PYTHON VENV
# Says what is missing when it can not. Safe to interrupt and to repeat.
set -eu
python=$1
venv=$2

if ! command -v "$python" >/dev/null 2>&1; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "• Installing Debian packages: python3 python3-venv"
    DEBIAN_FRONTEND=noninteractive apt-get install -y python3 python3-venv >/dev/null 2>&1 ||
      { apt-get update >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y python3 python3-venv >/dev/null; }
  else
    echo "Python 3.11 or newer is needed and '$python' was not found. As an administrator: apt-get install python3 python3-venv" >&2
    exit 1
  fi
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "Python 3.11 or newer is needed; '$python' is $("$python" -V). Name another: make PYTHON=python3.12 …" >&2
  exit 1
}
"$python" -c 'import venv, ensurepip' 2>/dev/null || {
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "• Installing Debian package: python3-venv"
    DEBIAN_FRONTEND=noninteractive apt-get install -y python3-venv >/dev/null 2>&1 ||
      { apt-get update >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y python3-venv >/dev/null; }
  else
    echo "Python's venv module is missing. As an administrator: apt-get install python3-venv" >&2
    exit 1
  fi
}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
echo "• Installing the project's environment into $venv (about 1.5 min the first time)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[dev]'
