-- Documents are JSON text; what is looked for is a column beside them. Times in columns
-- are milliseconds since 1970, for order and comparison only; the exact ones are in the
-- documents. Booleans are 0 and 1.

CREATE TABLE tasks (
    id         TEXT   PRIMARY KEY,
    team       TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    body       TEXT   NOT NULL
);
CREATE INDEX tasks_newest ON tasks (team, created_at, id);

CREATE TABLE runs (
    id           TEXT   PRIMARY KEY,
    task         TEXT   NOT NULL REFERENCES tasks (id),
    team         TEXT   NOT NULL,
    state        TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    -- When a worker may take it; NULL while nobody may.
    claimable_at BIGINT,
    -- Grows with every claim; a worker with an older one is refused.
    fence        BIGINT NOT NULL,
    last_seq     BIGINT NOT NULL,
    chain_head   TEXT   NOT NULL,
    -- Never changes after the insert.
    spec         TEXT   NOT NULL,
    -- The machine, the budget, result, failure and exact times.
    live         TEXT   NOT NULL
);
CREATE INDEX runs_newest ON runs (team, created_at, id);
CREATE INDEX runs_by_state ON runs (state, created_at, id);
CREATE INDEX runs_claimable ON runs (created_at, id) WHERE claimable_at IS NOT NULL;

CREATE TABLE events (
    run   TEXT   NOT NULL REFERENCES runs (id),
    seq   BIGINT NOT NULL,
    time  TEXT   NOT NULL,
    kind  TEXT   NOT NULL,
    trace TEXT,
    data  TEXT   NOT NULL,
    PRIMARY KEY (run, seq)
);

CREATE TABLE actions (
    id         TEXT    PRIMARY KEY,
    run        TEXT    NOT NULL REFERENCES runs (id),
    -- 1, 2, 3 … in the order the run first asked.
    place      BIGINT  NOT NULL,
    in_flight  BOOLEAN NOT NULL,
    -- For loop detection: whether it counts, what was asked, whether a person approved the repetition.
    counts     BOOLEAN NOT NULL,
    asked      TEXT    NOT NULL,
    repetition BOOLEAN NOT NULL,
    body       TEXT    NOT NULL,
    UNIQUE (run, place)
);
CREATE INDEX actions_in_flight ON actions (run) WHERE in_flight;

CREATE TABLE approvals (
    id           TEXT    PRIMARY KEY,
    run          TEXT    NOT NULL REFERENCES runs (id),
    team         TEXT    NOT NULL,
    digest       TEXT    NOT NULL,
    state        TEXT    NOT NULL,
    used         BOOLEAN NOT NULL,
    requested_at BIGINT  NOT NULL,
    expires_at   BIGINT  NOT NULL,
    body         TEXT    NOT NULL
);
CREATE INDEX approvals_newest ON approvals (team, requested_at, id);
CREATE INDEX approvals_of_run ON approvals (run, digest);
CREATE INDEX approvals_due ON approvals (expires_at) WHERE state = 'pending';

CREATE TABLE messages (
    run  TEXT   NOT NULL REFERENCES runs (id),
    seq  BIGINT NOT NULL,
    body TEXT   NOT NULL,
    PRIMARY KEY (run, seq)
);

CREATE TABLE artifacts (
    run     TEXT NOT NULL REFERENCES runs (id),
    name    TEXT NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (run, name)
);

CREATE TABLE tokens (
    id            TEXT   PRIMARY KEY,
    team          TEXT   NOT NULL,
    secret_sha256 TEXT   NOT NULL UNIQUE,
    created_at    BIGINT NOT NULL,
    body          TEXT   NOT NULL
);
CREATE INDEX tokens_newest ON tokens (team, created_at, id);

CREATE TABLE idempotency_keys (
    team    TEXT NOT NULL,
    key     TEXT NOT NULL,
    request TEXT NOT NULL,
    task    TEXT NOT NULL REFERENCES tasks (id),
    run     TEXT,
    PRIMARY KEY (team, key)
);
