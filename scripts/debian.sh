# debian.sh: read by the scripts that fetch what the tests run, not run itself. Installs Debian's packages, where root or passwordless sudo allows.

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# Prints a program and ends the script, when it runs.
take_program() {
  if [ -n "$1" ] && "$1" --version >/dev/null 2>&1; then
    printf '%s\n' "$1"
    exit 0
  fi
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    env DEBIAN_FRONTEND=noninteractive "$@"
  else
    sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
  fi
}

may_install() {
  command -v apt-get >/dev/null 2>&1 || { say 'no apt-get here'; return 1; }
  as_root true >/dev/null 2>&1 || { say 'neither root nor passwordless sudo: no package'; return 1; }
}

apt_install() {
  as_root apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold -o Dpkg::Use-Pty=0 "$@" 2>&1
}

# Packages of servers start them: a policy that forbids it has to be there before, and is taken away again where it was ours.
install_debian() {
  may_install || return 1
  say "installing $* (no server is started) ..."
  policy=/usr/sbin/policy-rc.d
  ours=
  if [ ! -e "$policy" ]; then
    as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy"
    ours=yes
  fi
  done=0
  if ! said=$(apt_install "$@"); then
    say 'updating the list of packages first ...'
    if ! said=$(as_root apt-get update -qq 2>&1 && apt_install "$@"); then
      printf '%s\n' "$said" | tail -n 20 >&2
      done=1
    fi
  fi
  if [ -n "$ours" ]; then as_root rm -f "$policy"; fi
  return $done
}
