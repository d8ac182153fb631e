-- What pgdetour keeps in a database. Applied by `pgdetour migrate`, in one transaction, under an advisory lock.

-- IF NOT EXISTS would ask for the right to make schemas even where there is one.
DO $$ BEGIN
    IF pg_catalog.to_regnamespace('pgdetour') IS NULL THEN
        CREATE SCHEMA pgdetour;
    END IF;
END $$;

CREATE TABLE pgdetour.migrations (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE pgdetour.migrations IS 'Which migrations were applied, and the SHA-256 of each.';

-- The answer is written by the transaction that has inserted the key, so whoever sees a row sees its answer too.
-- An update that finds room on its page touches no index.
CREATE TABLE pgdetour.writes (
    key        text COLLATE "C" PRIMARY KEY CHECK (pg_catalog.octet_length(key) BETWEEN 1 AND 255),
    answer     text,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 75);
CREATE INDEX writes_expires_at ON pgdetour.writes (expires_at);
COMMENT ON TABLE pgdetour.writes IS 'Writes that happened once: the key of each and its answer, as JSON, until it expires.';
