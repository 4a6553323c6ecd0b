-- What decided the answers and their scores: models by fingerprint, and settings. A row for each that has served.
CREATE TABLE origin (
    number ${serial},
    digest TEXT NOT NULL UNIQUE,
    manifest TEXT NOT NULL
);

-- A served answer with all of its candidates. `record` is an entry of a journal. `created` and `expires` are seconds
-- since 1970; a null `expires` is never. `owner` is a keyed hash of the caller's API key, `user_digest` and
-- `identifier_digest` of the request's `user` and `safety_identifier`. A `refusal` was returned in place of the answer.
CREATE TABLE selection (
    number ${serial},
    id TEXT NOT NULL UNIQUE,
    created BIGINT NOT NULL,
    expires BIGINT,
    owner TEXT,
    user_digest TEXT,
    identifier_digest TEXT,
    model TEXT NOT NULL,
    refusal TEXT,
    origin BIGINT NOT NULL REFERENCES origin (number),
    record TEXT NOT NULL
);

CREATE INDEX selection_created ON selection (created);

CREATE INDEX selection_expires ON selection (expires) WHERE expires IS NOT NULL;

CREATE INDEX selection_user ON selection (user_digest) WHERE user_digest IS NOT NULL;

CREATE INDEX selection_identifier ON selection (identifier_digest) WHERE identifier_digest IS NOT NULL;

CREATE INDEX selection_origin ON selection (origin, number);

-- Files that were written from the store, and whose words they hold: a forgotten user's files have to be named, also
-- after the rows themselves have expired.
CREATE TABLE export (
    number ${serial},
    created BIGINT NOT NULL,
    path TEXT NOT NULL,
    formats TEXT NOT NULL
);

CREATE TABLE export_person (
    export BIGINT NOT NULL REFERENCES export (number) ON DELETE CASCADE,
    digest TEXT NOT NULL,
    PRIMARY KEY (digest, export)
);

-- Forgotten users: what they were answered up to then is not stored any more, should a writer still hold it.
CREATE TABLE tombstone (
    digest TEXT PRIMARY KEY,
    forgotten BIGINT NOT NULL
);

-- Facts about the store, such as which key its digests were made with.
CREATE TABLE fact (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
