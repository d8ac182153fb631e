#!/usr/bin/env bash
# Runs the replica: copies the primary when there is nothing to start from, and again whenever what is there cannot follow it.
#
# It cannot follow when it is of another system, when it was promoted, when it stands on a timeline the primary does not have, when
# it does not start, and when it runs but for 10 s neither streams nor replays although the primary answers (the WAL it needs is gone, or
# the histories have parted). What it had is kept once, as $PGDATA.previous. Without a primary it starts from what it has.
#
# PGDATA, POSTGRES_USER; REPLICATION_SOURCE is the primary's connection string, PGPASSWORD its password.
set -euo pipefail
export LC_ALL=C PGCONNECT_TIMEOUT=2

if [ "$(id -u)" = 0 ]; then
  mkdir -p "$(dirname "$PGDATA")" /var/run/postgresql
  chown postgres:postgres "$(dirname "$PGDATA")" /var/run/postgresql
  exec "$(command -v gosu || command -v su-exec)" postgres bash "$0" "$@"
fi

say() { echo "replica: $*" >&2; }

# "system identifier|timeline|..." of the primary, if it answers; else why not, on standard error.
primary() { timeout 3 psql "$REPLICATION_SOURCE replication=1" -XqtA --no-password -c IDENTIFY_SYSTEM; }

# control LABEL: one line of the control file.
control() { pg_controldata "$PGDATA" | sed -n "s/^$1: *//p"; }

# Why the data here cannot follow the primary, or nothing when it may: the primary does not answer, or the two match.
obstacle() {
  local identity system timeline
  if [ ! -s "$PGDATA/PG_VERSION" ]; then echo "there is none yet"; return; fi
  identity=$(primary 2>/dev/null) || return 0
  IFS='|' read -r system timeline _ <<<"$identity"
  if [ "$(control 'Database system identifier')" != "$system" ]; then
    echo "what is here is of another system"
  elif [ ! -e "$PGDATA/standby.signal" ]; then
    echo "what is here was promoted"
  elif [ "$(control "Latest checkpoint's TimeLineID")" -gt "$timeline" ]; then
    echo "what is here is on a later timeline"
  fi
}

# Copies the primary for `reason`, as often as it takes. A copy takes its place only when it is complete.
copy() {
  say "copying the primary: $reason"
  local tries=0
  server=''
  rm -rf "$PGDATA.copying"
  until primary >/dev/null 2>&1 && pg_basebackup --dbname="$REPLICATION_SOURCE" --no-password --pgdata="$PGDATA.copying" --wal-method=stream \
    --checkpoint=fast --no-sync; do
    tries=$((tries + 1))
    if [ $((tries % 50)) = 0 ]; then say "still waiting: $(primary 2>&1 || true)"; fi
    rm -rf "$PGDATA.copying"
    sleep 0.2
  done
  touch "$PGDATA.copying/standby.signal"
  if [ -e "$PGDATA" ]; then
    rm -rf "$PGDATA.previous"
    mv "$PGDATA" "$PGDATA.previous"
  fi
  mv "$PGDATA.copying" "$PGDATA"
  copied=1 reason=''
}

start() {
  # Whoever wrote it ran in a container that is gone; its number may be some other process's here.
  rm -f "$PGDATA/postmaster.pid"
  postgres -c listen_addresses='*' -c primary_conninfo="$REPLICATION_SOURCE application_name=replica" "$@" &
  server=$! answered='' idle=0 position=''
}

# One look at the running server; leaves in `reason` why a new copy is due. A server that is promoted while it runs is left alone.
look() {
  local seen
  seen=$(timeout 3 psql -XqtA -U "$POSTGRES_USER" -d postgres --no-password -c "SELECT CASE WHEN NOT pg_is_in_recovery() OR EXISTS
    (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') THEN 'follows' ELSE pg_last_wal_replay_lsn()::text END" 2>/dev/null) || return 0
  answered=1
  if [ "$seen" = follows ]; then idle=0; return; fi
  reason=$(obstacle)
  if [ -n "$reason" ]; then return; fi
  if [ "$seen" != "$position" ] || ! primary >/dev/null 2>&1; then idle=0; else idle=$((idle + 1)); fi
  position=$seen
  if [ "$idle" -ge 5 ]; then reason="what is here has not followed for 10 s although the primary answers"; fi
}

# Runs the server until it ends or a new copy is due.
run() {
  local timer
  start "$@"
  while kill -0 "$server" 2>/dev/null; do
    sleep 2 &
    timer=$!
    wait -n "$server" "$timer" || true
    kill "$timer" 2>/dev/null || true
    if [ -z "$stopping" ] && kill -0 "$server" 2>/dev/null; then look; fi
    if [ -n "$reason" ]; then kill -INT "$server" 2>/dev/null || true; break; fi
  done
  status=0
  wait "$server" || status=$?
  if [ -z "$stopping$answered$copied" ]; then reason=${reason:-"what is here does not start"}; fi
}

# A shell that is process 1 obeys only the signals it asked for. Both mean a fast shutdown.
stopping='' server=''
trap 'stopping=1; if [ -n "$server" ]; then kill -INT "$server" 2>/dev/null || true; else exit 0; fi' INT TERM

reason=$(obstacle)
while :; do
  copied=''
  if [ -n "$reason" ]; then copy; fi
  run "$@"
  if [ -n "$stopping" ]; then exit 0; fi
  if [ -z "$reason" ]; then say "the server ended by itself (status $status)" && exit 1; fi
done
