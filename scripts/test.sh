#!/usr/bin/env bash
# Runs all tests with all features, on real servers, and fails if anything they printed holds a password they use.
# Arguments go to cargo: scripts/test.sh --test testkit
set -euo pipefail
cd "$(dirname "$0")/.."

PG_BIN="$(./scripts/postgres.sh)"
export PG_BIN
# The servers of the ready-made services: a place where they cannot be had is told before anything is built.
./scripts/services.sh >/dev/null
mkdir -p target
printed=target/test-output.txt

# What passing tests print is shown too: it is part of what is looked through.
cargo test --all-features "$@" -- --show-output 2>&1 | tee "$printed"

# Each test file that uses a password declares it as PASSWORD.
passwords="$(grep -rhoE 'const PASSWORD: &str = "[^"]+"' tests src | sed -E 's/.*"(.*)"/\1/' | sort -u)"
[ -n "$passwords" ] || { echo "scripts/test.sh: found no password to look for in tests/" >&2; exit 1; }
if found="$(grep -nF -e "$passwords" "$printed")"; then
    printf 'scripts/test.sh: a test printed a password:\n%s\n' "$found" >&2
    exit 1
fi
echo "no password in $(wc -l <"$printed") lines of output"
