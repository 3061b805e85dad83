CREATE TABLE authz_records (
    kind smallint NOT NULL,
    id text COLLATE "C" NOT NULL,
    session text COLLATE "C",
    assignee text COLLATE "C",
    live boolean NOT NULL,
    due bigint,
    body text NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX authz_records_session ON authz_records (session, id) WHERE kind = 3;
CREATE INDEX authz_records_assignee ON authz_records (hashtextextended(assignee, 0), id) WHERE kind = 3;
CREATE INDEX authz_records_live ON authz_records (hashtextextended(assignee, 0), id) WHERE kind = 3 AND live;
CREATE INDEX authz_records_due ON authz_records (due, kind, id) WHERE due IS NOT NULL;
CREATE TABLE authz_feed (
    xact xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT now(),
    kind smallint NOT NULL,
    id text COLLATE "C" NOT NULL
);
CREATE INDEX authz_feed_xact ON authz_feed (xact);
CREATE INDEX authz_feed_at ON authz_feed (at);
CREATE TABLE authz_outbox (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    line bytea NOT NULL
);
CREATE INDEX authz_outbox_at ON authz_outbox (at)
