#!/bin/sh
# chromium.sh: prints the path of a Chromium that the tests of the status page can drive, on standard output; all else goes to standard error.
# Takes what it finds; else installs Debian's package, where root or passwordless sudo allows.
set -eu

. "$(dirname -- "$0")/debian.sh"

find_on_system() {
  take_program "${CHROMIUM:-}"
  for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do
    take_program "$(command -v "$name" || true)"
  done
  take_program '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome'
  take_program '/Applications/Chromium.app/Contents/MacOS/Chromium'
}

find_on_system
if install_debian chromium; then find_on_system; fi

say 'found no Chromium and could not install one. Install it:'
say '  Debian: apt-get install chromium      Fedora: dnf install chromium      Alpine: apk add chromium'
say 'or set CHROMIUM to the program.'
exit 1
