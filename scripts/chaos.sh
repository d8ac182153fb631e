#!/usr/bin/env bash
# Runs the experiments of chaos/ with the Chaos Toolkit: a venv in target/, a pair, `pgdetour serve` over it, and one journal for each.
#
#   scripts/chaos.sh                       all experiments on servers of the test kit
#   scripts/chaos.sh kill freeze           these
#   CHAOS_PAIR=compose scripts/chaos.sh    on the pair of docker-compose.yml (Docker and Compose have to be there)
#
# Journals: target/chaos/NAME.json; what the toolkit said: NAME.txt beside it. Ends with 1 if an experiment deviated, and leaves nothing running.
set -euo pipefail
cd "$(dirname "$0")/.."

pair=${CHAOS_PAIR:-testkit}
out=target/chaos
mkdir -p "$out"
say() { echo "chaos: $*" >&2; }

venv=target/chaostoolkit
if ! "$venv/bin/chaos" --version >/dev/null 2>&1; then
  say "installing the Chaos Toolkit in $venv ..."
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check 'chaostoolkit>=1.19,<2'
fi

# Optimized where passwords are checked: a login by SCRAM takes half a second of a core otherwise.
if [ "$pair" = compose ]; then set -- release "$@"; else set -- dev "$@"; fi
if [ -z "${PGDETOUR:-}" ]; then
  cargo build --quiet --profile "$1" --features cli --bin pgdetour
  PGDETOUR=$PWD/target/${1/dev/debug}/pgdetour
fi
shift
# The experiments call both by their names.
export PATH="$PWD/$venv/bin:$(dirname "$PGDETOUR"):$PATH"
export PGDETOUR CHAOS_PAIR=$pair CHAOS_SOCKET=$PWD/$out/socket CHAOS_CONFIG=$PWD/$out/pair.toml

held='' served=''
finish() {
  if [ -n "$served" ]; then kill "$served" 2>/dev/null || true; wait "$served" 2>/dev/null || true; fi
  if [ "$pair" = compose ]; then chaos/server.sh down >/dev/null 2>&1 || true; fi
  if [ -n "$held" ]; then kill "$held" 2>/dev/null || true; wait "$held" 2>/dev/null || true; fi
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

# until SECONDS COMMAND...: waits until the command succeeds.
until_() {
  local tries=$(($1 * 5))
  shift
  until "$@" >/dev/null 2>&1; do
    tries=$((tries - 1))
    if [ "$tries" -le 0 ]; then say "waited in vain for: $*"; return 1; fi
    sleep 0.2
  done
}

case $pair in
testkit)
  PG_BIN=${PG_BIN:-$(scripts/postgres.sh)}
  export PG_BIN
  rm -f "$CHAOS_CONFIG"
  "$PGDETOUR" cluster --config "$CHAOS_CONFIG" --socket "$CHAOS_SOCKET" >"$out/cluster.log" 2>&1 &
  held=$!
  until_ 60 test -S "$CHAOS_SOCKET"
  ;;
compose)
  chaos/server.sh up
  ;;
*) say "CHAOS_PAIR is $pair, not testkit or compose"; exit 2 ;;
esac

until_ 60 "$PGDETOUR" check "$CHAOS_CONFIG" --connect
"$PGDETOUR" serve "$CHAOS_CONFIG" --public --listen 127.0.0.1:0 >"$out/serve.url" 2>"$out/serve.log" &
served=$!
until_ 30 grep -q http "$out/serve.url"
CHAOS_URL=$(sed -n 's|^\(http://[^/]*\)/.*|\1|p' "$out/serve.url")
export CHAOS_URL

failed=''
for experiment in "${@:-kill stop freeze primary}"; do
  for name in $experiment; do
    until_ 30 "$PGDETOUR" check "$CHAOS_CONFIG" --connect
    say "$name, on $pair"
    rm -f "$out/$name.json"
    # Also while the server is broken: ready, and reads are answered.
    chaos --log-file "$out/$name.log" run --journal-path "$out/$name.json" --rollback-strategy always \
      --hypothesis-strategy continuously --hypothesis-frequency 1 "chaos/$name.json" >"$out/$name.txt" 2>&1 || true
    if [ ! -e "$out/$name.json" ]; then tail -n 3 "$out/$name.txt" >&2; fi
    if ! python3 chaos/journal.py "$out/$name.json"; then failed="$failed $name"; fi
  done
done
if [ -n "$failed" ]; then say "deviated:$failed"; exit 1; fi
