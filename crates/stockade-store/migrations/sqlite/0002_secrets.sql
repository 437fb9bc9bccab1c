-- Values are sealed outside the store; what is here tells nobody anything but names.

CREATE TABLE secrets (
    team       TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    -- RFC 3339: exact, and only told.
    created_at TEXT   NOT NULL,
    updated_at TEXT   NOT NULL,
    -- 1, and one more with every value put since.
    version    BIGINT NOT NULL,
    sealed     BLOB   NOT NULL,
    PRIMARY KEY (team, name)
);
