#!/usr/bin/env bash
# Runs once, on the new primary before it listens: the application's role and table, and the role that the replica copies with.
set -euo pipefail

psql -v ON_ERROR_STOP=1 --no-psqlrc --quiet --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --set=password="$POSTGRES_PASSWORD" <<'SQL'
CREATE ROLE app LOGIN PASSWORD :'password';
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'password';
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    item text NOT NULL DEFAULT 'an apple',
    placed_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT, INSERT ON orders TO app;
-- For `pgdetour migrate`, which makes the schema that write_once keeps its keys in.
SELECT format('GRANT CREATE ON DATABASE %I TO app', current_database()) \gexec
INSERT INTO orders DEFAULT VALUES;
SQL

# From the pair's own network only.
echo 'host replication replicator samenet scram-sha-256' >>"$PGDATA/pg_hba.conf"
