#!/bin/sh
# services.sh: prints where the servers are that the tests of the ready-made services run, as MEMCACHED=…, REDIS=… and RABBITMQ=… on standard
# output; all else goes to standard error. Takes what it finds; else installs Debian's packages, where root or passwordless sudo allows,
# without starting any of them. Fails where one cannot be had.
#
# services.sh memcached   looks for this one alone (memcached, redis or rabbitmq)
set -eu

. "$(dirname -- "$0")/debian.sh"

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
