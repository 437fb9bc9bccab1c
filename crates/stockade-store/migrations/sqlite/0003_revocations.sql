-- Hosts taken away from the runs of an environment; lifted ones stay, as a record of who did what.

CREATE TABLE revocations (
    id          TEXT    PRIMARY KEY,
    team        TEXT    NOT NULL,
    environment TEXT    NOT NULL,
    created_at  BIGINT  NOT NULL,
    in_force    BOOLEAN NOT NULL,
    body        TEXT    NOT NULL
);
CREATE INDEX revocations_newest ON revocations (team, environment, created_at, id);
CREATE INDEX revocations_in_force ON revocations (created_at) WHERE in_force;
