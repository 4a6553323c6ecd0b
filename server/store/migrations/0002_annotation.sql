-- What annotators are told; the newest version holds for batches that are made from then on.
CREATE TABLE guidelines (
    version BIGINT PRIMARY KEY,
    created BIGINT NOT NULL,
    text TEXT NOT NULL
);

-- `closed` is when it was, null of an open one, and -1 until all of its pairs are there.
CREATE TABLE batch (
    number ${serial},
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    policy TEXT NOT NULL,
    seed BIGINT NOT NULL,
    overlap BIGINT NOT NULL,
    guidelines BIGINT NOT NULL REFERENCES guidelines (version),
    created BIGINT NOT NULL,
    closed BIGINT
);

-- Two candidates to choose between, a and b in canonical order. It goes with either answer. `propensity` is the
-- probability with which the policy chose it. Origins, scores (logits), lengths (characters) and when the first of the two
-- answers expires stand here, too, so that nothing has to read every answer. `places` is how many annotators are still
-- wanted.
CREATE TABLE pair (
    number ${serial},
    batch BIGINT NOT NULL REFERENCES batch (number) ON DELETE CASCADE,
    a_selection BIGINT NOT NULL REFERENCES selection (number) ON DELETE CASCADE,
    a_index BIGINT NOT NULL,
    b_selection BIGINT NOT NULL REFERENCES selection (number) ON DELETE CASCADE,
    b_index BIGINT NOT NULL,
    a_origin BIGINT NOT NULL,
    b_origin BIGINT NOT NULL,
    expires BIGINT,
    propensity DOUBLE PRECISION NOT NULL,
    a_safety DOUBLE PRECISION NOT NULL,
    b_safety DOUBLE PRECISION NOT NULL,
    a_helpfulness DOUBLE PRECISION,
    b_helpfulness DOUBLE PRECISION,
    a_combined DOUBLE PRECISION NOT NULL,
    b_combined DOUBLE PRECISION NOT NULL,
    a_length BIGINT NOT NULL,
    b_length BIGINT NOT NULL,
    places BIGINT NOT NULL
);

CREATE INDEX pair_batch ON pair (batch, expires);

CREATE INDEX pair_open ON pair (batch, number) WHERE places > 0;

CREATE INDEX pair_a ON pair (a_selection);

CREATE INDEX pair_b ON pair (b_selection);

CREATE TABLE annotator (
    number ${serial},
    name TEXT NOT NULL UNIQUE
);

-- What an annotator has to do with a pair: they hold it while `token` is not null and `expires` is ahead, have skipped
-- it, or have annotated it `revisions` times.
CREATE TABLE lease (
    pair BIGINT NOT NULL REFERENCES pair (number) ON DELETE CASCADE,
    annotator BIGINT NOT NULL REFERENCES annotator (number),
    batch BIGINT NOT NULL,
    left_is_a BIGINT NOT NULL,
    token TEXT UNIQUE,
    expires BIGINT NOT NULL,
    skipped BIGINT,
    reason TEXT,
    revisions BIGINT NOT NULL,
    PRIMARY KEY (pair, annotator)
);

CREATE INDEX lease_annotator ON lease (annotator, batch, revisions);

CREATE INDEX lease_batch ON lease (batch, annotator, revisions, skipped);

CREATE INDEX lease_expires ON lease (expires) WHERE token IS NOT NULL;

-- A choice. `choice` is from 1, a significantly better, to 8, b significantly better; `shown` is the same with left and
-- right for a and b. Of an annotator's revisions for a pair the newest counts: `is_latest` is 1 there, else 0.
CREATE TABLE annotation (
    number ${serial},
    pair BIGINT NOT NULL REFERENCES pair (number) ON DELETE CASCADE,
    annotator BIGINT NOT NULL REFERENCES annotator (number),
    submission TEXT NOT NULL,
    revision BIGINT NOT NULL,
    created BIGINT NOT NULL,
    choice BIGINT NOT NULL,
    shown BIGINT NOT NULL,
    left_is_a BIGINT NOT NULL,
    a_safe BIGINT NOT NULL,
    b_safe BIGINT NOT NULL,
    flags TEXT NOT NULL,
    comment TEXT NOT NULL,
    active_ms BIGINT NOT NULL,
    guidelines BIGINT NOT NULL,
    is_latest BIGINT NOT NULL,
    UNIQUE (annotator, submission),
    UNIQUE (pair, annotator, revision)
);

CREATE INDEX annotation_annotator ON annotation (annotator, number);
