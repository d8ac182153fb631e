-- The history of outages: what each process found for itself, kept by `history = "primary"` and told by `pgdetour report`.

-- The identifier is made by the process, so that a record that is sent twice is kept once.
CREATE TABLE pgdetour.outages (
    id          text COLLATE "C" PRIMARY KEY CHECK (pg_catalog.octet_length(id) BETWEEN 1 AND 255),
    process     text NOT NULL,
    name        text NOT NULL,
    address     text NOT NULL,
    opened_at   timestamptz NOT NULL,
    detected_ms bigint NOT NULL CHECK (detected_ms >= 0),
    closed_at   timestamptz,
    lasted_ms   bigint NOT NULL CHECK (lasted_ms >= 0),
    seen_at     timestamptz NOT NULL,
    cause       text NOT NULL,
    last_cause  text NOT NULL,
    detour      text,
    detoured    bigint NOT NULL CHECK (detoured >= 0),
    refused     bigint NOT NULL CHECK (refused >= 0),
    failed      bigint NOT NULL CHECK (failed >= 0)
);
CREATE INDEX outages_opened_at ON pgdetour.outages (opened_at);
COMMENT ON TABLE pgdetour.outages IS 'Outages, a row for each that a process has seen; closed_at is null while one is open, or if its process ended first.';
COMMENT ON COLUMN pgdetour.outages.name IS 'The alias or service.';
COMMENT ON COLUMN pgdetour.outages.detected_ms IS 'From the first sign of it to the opening: the time to detect.';
COMMENT ON COLUMN pgdetour.outages.lasted_ms IS 'From the opening to the end: the time to recover.';
COMMENT ON COLUMN pgdetour.outages.seen_at IS 'When its process last told of it.';
COMMENT ON COLUMN pgdetour.outages.detoured IS 'Reads that another server took.';
COMMENT ON COLUMN pgdetour.outages.refused IS 'Requests that no server took.';
COMMENT ON COLUMN pgdetour.outages.failed IS 'Leases that were lost.';
