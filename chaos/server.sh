#!/usr/bin/env bash
# Breaks and repairs a server of the experiments' pair: server.sh kill|stop|freeze|repair primary|replica. scripts/chaos.sh sets the environment.
#
#   CHAOS_PAIR   testkit: what `pgdetour cluster` holds up at CHAOS_SOCKET; compose: the pair of docker-compose.yml
set -euo pipefail
cd "$(dirname "$0")/.."

action=$1 server=${2:-}

compose() {
  if docker compose version >/dev/null 2>&1; then set -- docker compose "$@"; else set -- docker-compose "$@"; fi
  COMPOSE_PROJECT_NAME=pgdetour-chaos PRIMARY_PORT=27612 REPLICA_PORT=27613 "$@"
}

if [ "${CHAOS_PAIR:-testkit}" = testkit ]; then
  exec "${PGDETOUR:-target/debug/pgdetour}" cluster --socket "${CHAOS_SOCKET:-pgdetour-cluster.sock}" "$action" "$server"
fi

case $action in
up)
  if ! docker image inspect postgres:17 >/dev/null 2>&1; then
    POSTGRES_IMAGE=${POSTGRES_IMAGE:-$(docker/build-image.sh)}
    export POSTGRES_IMAGE
  fi
  sed 's/:27432/:27612/; s/:27433/:27613/' examples/compose.toml >"$CHAOS_CONFIG"
  compose up -d
  ;;
down) compose unpause || true; compose down --volumes --timeout 1 ;;
kill) compose kill "$server" ;;
stop) compose stop "$server" ;;
freeze) compose pause "$server" ;;
# Whichever it needs; the other one says that it does not.
repair) compose unpause "$server" 2>/dev/null || true; compose start "$server" ;;
*) echo "server.sh: no action is named $action" >&2; exit 2 ;;
esac
