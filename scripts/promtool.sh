#!/bin/sh
# promtool.sh: prints the path of a promtool that checks the alerts, on standard output; all else goes to standard error.
# Takes what it finds; else installs Debian's package, where root or passwordless sudo allows.
set -eu

. "$(dirname -- "$0")/debian.sh"

find_on_system() {
  take_program "${PROMTOOL:-}"
  take_program "$(command -v promtool || true)"
}

find_on_system
if install_debian prometheus; then find_on_system; fi

say 'found no promtool and could not install one. Install it:'
say '  Debian: apt-get install prometheus      Fedora: dnf install golang-github-prometheus'
say 'or set PROMTOOL to the program.'
exit 1
