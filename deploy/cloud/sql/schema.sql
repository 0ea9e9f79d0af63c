-- Events of edge-agents in PostgreSQL 12 or later. `edge-agent archive --to postgresql://…` makes these tables where they
-- are missing; run it yourself where its user may not: psql -f schema.sql DATABASE
--
-- arrival: one row an event, whatever came twice: its key is what makes that so. It also tells what is missing.
CREATE TABLE IF NOT EXISTS arrival (
    device  text NOT NULL,
    epoch   bigint NOT NULL,
    seq     bigint NOT NULL,
    at      timestamptz NOT NULL,
    arrived timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (device, epoch, seq)
);

-- event: what it says; a table a month (by UTC), made by who writes first. A month goes with
--   DROP TABLE event_y2026m01; DELETE FROM arrival WHERE at < '2026-02-01 00:00+00';
CREATE TABLE IF NOT EXISTS event (
    device   text NOT NULL,
    epoch    bigint NOT NULL,
    seq      bigint NOT NULL,
    at       timestamptz NOT NULL,
    arrived  timestamptz NOT NULL DEFAULT now(),
    pipeline text NOT NULL,
    kind     text NOT NULL,
    bytes    integer NOT NULL,
    body     jsonb NOT NULL
) PARTITION BY RANGE (at);
-- of clocks that are years off
CREATE TABLE IF NOT EXISTS event_elsewhen PARTITION OF event DEFAULT;
CREATE INDEX IF NOT EXISTS event_device_at ON event (device, at DESC);
CREATE INDEX IF NOT EXISTS event_kind_at ON event (kind, at DESC);

-- odd: messages that are no events, or that no column takes; kept, so that nothing is lost without a trace
CREATE TABLE IF NOT EXISTS odd (
    arrived timestamptz NOT NULL DEFAULT now(),
    why     text NOT NULL,
    payload bytea NOT NULL
);

-- gap: what a device declared lost, and what came of it. `open` of the declared numbers have not come; `late` came all the same.
-- It is closed when every number of it is here.
CREATE OR REPLACE VIEW gap AS
SELECT g.device, g.epoch, g.seq, g.at, g.first, g.last, g.count AS declared, g.why,
       greatest(0, least(g.count, g.last - g.first + 1 - a.here)) AS open,
       greatest(0, a.here - (g.last - g.first + 1 - g.count)) AS late,
       a.here = g.last - g.first + 1 AS closed
FROM (
    SELECT device, epoch, seq, at, (body->>'first')::bigint AS first, (body->>'last')::bigint AS last,
           (body->>'count')::bigint AS count, body->>'why' AS why
    FROM event WHERE kind = 'gap'
) AS g
CROSS JOIN LATERAL (
    SELECT count(*) AS here FROM arrival AS a
    WHERE a.device = g.device AND a.epoch = g.epoch AND a.seq BETWEEN g.first AND g.last
) AS a;

-- account: of each device and epoch what came, what it declared lost, and what is missing without a word
CREATE OR REPLACE VIEW account AS
SELECT a.device, a.epoch, a.first, a.last, a.received, coalesce(g.open, 0) AS declared,
       greatest(0, a.last - a.first + 1 - a.received - coalesce(g.open, 0)) AS missing, a.newest, a.arrived
FROM (
    SELECT device, epoch, min(seq) AS first, max(seq) AS last, count(*) AS received, max(at) AS newest,
           max(arrived) AS arrived
    FROM arrival GROUP BY device, epoch
) AS a
LEFT JOIN (SELECT device, epoch, sum(open) AS open FROM gap GROUP BY device, epoch) AS g USING (device, epoch);
