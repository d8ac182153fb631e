#!/bin/sh
# services.sh: prints where the servers are that the tests of the ready-made services run, as MEMCACHED=…, REDIS=… and RABBITMQ=… on standard
# output; all else goes to standard error. Takes what it finds; else installs Debian's packages, where root or passwordless sudo allows,
# without starting any of them. Fails where one cannot be had.
#
# services.sh memcached   looks for this one alone (memcached, redis or rabbitmq)
set -eu

say() { printf 'services.sh: %s\n' "$*" >&2; }

# The first of these that can be run.
first() {
  for file in "$@"; do
    if [ -n "$file" ] && [ -x "$file" ]; then
      printf '%s\n' "$file"
      return 0
    fi
  done
  return 1
}

on_path() { command -v "$1" 2>/dev/null || true; }

# RabbitMQ's own script, not the wrapper in /usr/sbin, which changes the user.
find_one() {
  case $1 in
    memcached) first "${MEMCACHED:-}" "$(on_path memcached)" /usr/bin/memcached ;;
    redis) first "${REDIS:-}" "$(on_path redis-server)" /usr/bin/redis-server ;;
    rabbitmq)
      epmd=$(on_path epmd)
      [ -n "$epmd" ] && first "${RABBITMQ:-}" /usr/lib/rabbitmq/bin/rabbitmq-server /usr/local/sbin/rabbitmq-server \
        /opt/homebrew/sbin/rabbitmq-server
      ;;
  esac
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    env DEBIAN_FRONTEND=noninteractive "$@"
  else
    sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
  fi
}

# Packages of servers start them: a policy that forbids it has to be there before, and is taken away again where it was ours.
install_debian() {
  command -v apt-get >/dev/null 2>&1 || { say 'no apt-get here'; return 1; }
  as_root true >/dev/null 2>&1 || { say 'neither root nor passwordless sudo: no package'; return 1; }
  say "installing the packages $* (no server is started) ..."
  policy=/usr/sbin/policy-rc.d
  ours=
  if [ ! -e "$policy" ]; then
    as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy"
    ours=yes
  fi
  done=1
  if said=$(as_root apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "$@" 2>&1); then
    done=0
  else
    say 'updating the list of packages first ...'
    if said=$(as_root apt-get update -qq 2>&1 && as_root apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "$@" 2>&1); then
      done=0
    else
      printf '%s\n' "$said" | tail -n 20 >&2
    fi
  fi
  if [ -n "$ours" ]; then as_root rm -f "$policy"; fi
  return $done
}

package() { case $1 in memcached) echo memcached ;; redis) echo redis-server ;; *) echo rabbitmq-server ;; esac; }

wanted=${*:-memcached redis rabbitmq}
for one in $wanted; do
  case $one in memcached | redis | rabbitmq) ;; *) say "knows memcached, redis and rabbitmq, not $one"; exit 2 ;; esac
done
missing=
for one in $wanted; do
  find_one "$one" >/dev/null || missing="$missing $(package "$one")"
done
if [ -n "$missing" ]; then
  # Several test files may come here at once; each finds what the one before has installed, or installs it again.
  # shellcheck disable=SC2086
  install_debian $missing || say 'that did not work'
fi
for one in $wanted; do
  if ! found=$(find_one "$one"); then
    say "found no $one and could not install it. Install it (Debian, Ubuntu: apt-get install $(package "$one")), or name it in $(printf '%s' "$one" | tr a-z A-Z)."
    exit 1
  fi
  printf '%s=%s\n' "$(printf '%s' "$one" | tr a-z A-Z)" "$found"
done
