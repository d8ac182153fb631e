#!/usr/bin/env bash
# The entry point of the image that build-image.sh makes: the part of the official image's contract that docker-compose.yml uses.
#
# PGDATA, POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB, POSTGRES_INITDB_ARGS, POSTGRES_HOST_AUTH_METHOD and
# /docker-entrypoint-initdb.d/*.{sh,sql} mean what they mean there; the server that runs the scripts listens on no network.
set -euo pipefail

if [ "${1:-}" != postgres ]; then exec "$@"; fi

if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" /var/run/postgresql
  chown -R postgres:postgres "$PGDATA" /var/run/postgresql
  chmod 700 "$PGDATA"
  exec gosu postgres "$0" "$@"
fi

export POSTGRES_USER=${POSTGRES_USER:-postgres}
export POSTGRES_DB=${POSTGRES_DB:-$POSTGRES_USER}
method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  if [ -z "${POSTGRES_PASSWORD:-}" ] && [ "$method" != trust ]; then
    echo "docker-entrypoint: POSTGRES_PASSWORD is not set, and a server without a password is not started by accident" >&2
    exit 1
  fi
  # shellcheck disable=SC2086 # the arguments are meant to be split
  initdb --username="$POSTGRES_USER" --encoding=UTF8 --pwfile=<(printf '%s\n' "${POSTGRES_PASSWORD:-}") ${POSTGRES_INITDB_ARGS:-} >/dev/null
  printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
  pg_ctl start --wait --silent --options="-c listen_addresses=''"
  if [ "$POSTGRES_DB" != postgres ]; then createdb --username="$POSTGRES_USER" --maintenance-db=postgres "$POSTGRES_DB"; fi
  for script in /docker-entrypoint-initdb.d/*; do
    case $script in
      *.sh) bash "$script" ;;
      *.sql) psql -v ON_ERROR_STOP=1 --no-psqlrc --quiet --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --file="$script" ;;
    esac
  done
  pg_ctl stop --wait --silent --mode=fast
fi

exec "$@"
