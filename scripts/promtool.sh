#!/bin/sh
# promtool.sh: prints the path of a promtool that checks the alerts, on standard output; all else goes to standard error.
# Takes what it finds; else installs Debian's package, where root or passwordless sudo allows.
set -eu

say() { printf 'promtool.sh: %s\n' "$*" >&2; }

# Prints a program and ends the script, when it runs.
take() {
  if [ -n "$1" ] && "$1" --version >/dev/null 2>&1; then
    printf '%s\n' "$1"
    exit 0
  fi
}

find_on_system() {
  take "${PROMTOOL:-}"
  take "$(command -v promtool || true)"
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    env DEBIAN_FRONTEND=noninteractive "$@"
  else
    sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
  fi
}

install_debian() {
  command -v apt-get >/dev/null 2>&1 || { say 'no apt-get here'; return 1; }
  as_root true >/dev/null 2>&1 || { say 'neither root nor passwordless sudo: no package'; return 1; }
  say 'installing the package prometheus ...'
  set -- install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 prometheus
  if said=$(as_root apt-get "$@" 2>&1); then return 0; fi
  if said=$(as_root apt-get update -qq 2>&1 && as_root apt-get "$@" 2>&1); then return 0; fi
  printf '%s\n' "$said" | tail -n 20 >&2
  return 1
}

find_on_system
if install_debian; then find_on_system; fi

say 'found no promtool and could not install one. Install it:'
say '  Debian: apt-get install prometheus      Fedora: dnf install golang-github-prometheus'
say 'or set PROMTOOL to the program.'
exit 1
