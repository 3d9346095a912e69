-- The broker's store. Times are Unix milliseconds and always come in as parameters; 0 is "not".

-- +goose Up

-- The audit log. line is the exact bytes of wire.AuditLine; audit_values is what its commitments stand for, and the
-- only place where a value may be erased.
CREATE TABLE audit_lines (
    seq  INTEGER PRIMARY KEY,
    line BLOB NOT NULL
) STRICT;

CREATE TABLE audit_values (
    seq        INTEGER NOT NULL REFERENCES audit_lines (seq),
    field      TEXT NOT NULL,
    commitment TEXT NOT NULL,
    salt       BLOB NOT NULL,
    value      TEXT NOT NULL,
    PRIMARY KEY (seq, field)
) STRICT, WITHOUT ROWID;

-- pkg/pairing: who may talk.
CREATE TABLE codes (
    id       TEXT PRIMARY KEY,
    selector TEXT NOT NULL UNIQUE,
    mac      BLOB NOT NULL,
    note     TEXT NOT NULL,
    tries    INTEGER NOT NULL,
    created  INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    used     INTEGER NOT NULL,
    burned   INTEGER NOT NULL,
    revoked  INTEGER NOT NULL,
    pairing  BLOB NOT NULL,
    request  BLOB NOT NULL
) STRICT;

CREATE TABLE pairings (
    id        BLOB PRIMARY KEY,
    dsig      BLOB NOT NULL,
    host      TEXT NOT NULL,
    state     INTEGER NOT NULL,
    reason    TEXT NOT NULL,
    sealed    INTEGER NOT NULL,
    executor  TEXT NOT NULL,
    versions  BLOB NOT NULL,
    kinds     TEXT NOT NULL,
    bundle    BLOB NOT NULL,
    bundle_no INTEGER NOT NULL,
    created   INTEGER NOT NULL,
    seen      INTEGER NOT NULL
) STRICT;

CREATE TABLE surfaces (
    pairing   BLOB NOT NULL REFERENCES pairings (id),
    id        BLOB NOT NULL,
    ssig      BLOB NOT NULL,
    label     TEXT NOT NULL,
    scopes    BLOB NOT NULL,
    serial    INTEGER NOT NULL,
    grant_    BLOB NOT NULL,
    not_after INTEGER NOT NULL,
    created   INTEGER NOT NULL,
    used      INTEGER NOT NULL,
    revoked   INTEGER NOT NULL,
    reason    TEXT NOT NULL,
    PRIMARY KEY (pairing, id)
) STRICT;

CREATE TABLE links (
    pid        BLOB PRIMARY KEY,
    pairing    BLOB NOT NULL REFERENCES pairings (id),
    mode       INTEGER NOT NULL,
    nameplate  TEXT NOT NULL,
    check_     BLOB NOT NULL,
    state      INTEGER NOT NULL,
    final      INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    tries      INTEGER NOT NULL,
    opened     INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    session    BLOB NOT NULL,
    network    TEXT NOT NULL,
    agent      TEXT NOT NULL,
    offer      BLOB NOT NULL,
    reveal     BLOB NOT NULL,
    grant_     BLOB NOT NULL,
    surface    BLOB NOT NULL,
    transcript BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX links_live ON links (pairing) WHERE final = 0;
CREATE UNIQUE INDEX links_nameplate ON links (nameplate) WHERE final = 0 AND nameplate <> '';
CREATE INDEX links_session ON links (session);

-- internal/mailbox: what is said.
CREATE TABLE mailboxes (
    pairing    BLOB PRIMARY KEY,
    epoch      INTEGER NOT NULL DEFAULT 0,
    reported   INTEGER NOT NULL DEFAULT 0,
    journal    BLOB NOT NULL DEFAULT x'',
    high_water INTEGER NOT NULL DEFAULT 0,
    sequence   INTEGER NOT NULL DEFAULT 0,
    open       INTEGER NOT NULL DEFAULT 0,
    open_bytes INTEGER NOT NULL DEFAULT 0,
    closed     INTEGER NOT NULL DEFAULT 0,
    restored   INTEGER NOT NULL DEFAULT 0,
    connected  INTEGER NOT NULL DEFAULT 0,
    since      INTEGER NOT NULL DEFAULT 0,
    cursor     INTEGER NOT NULL DEFAULT 0,
    floor      INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE chains (
    pairing BLOB NOT NULL,
    surface BLOB NOT NULL,
    seq     INTEGER NOT NULL DEFAULT 0,
    last    BLOB NOT NULL DEFAULT x'',
    open    INTEGER NOT NULL DEFAULT 0,
    closed  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (pairing, surface)
) STRICT, WITHOUT ROWID;

-- state: 0 queued, 1 leased, 2 accepted, 3 waiting_local; ended: 4 completed, 5 failed, 6 blocked_by_policy,
-- 7 expired, 8 cancelled, 9 outcome_unknown. stop: 0 none, 1 cancel, 2 expire, 3 answered.
CREATE TABLE commands (
    n          INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    pairing    BLOB NOT NULL,
    sequence   INTEGER NOT NULL,
    surface    BLOB NOT NULL,
    kind       INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    prev       BLOB NOT NULL,
    digest     BLOB NOT NULL,
    commit_    BLOB NOT NULL,
    issued     INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    size       INTEGER NOT NULL,
    state      INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    token      BLOB NOT NULL,
    epoch      INTEGER NOT NULL,
    deliveries INTEGER NOT NULL,
    stop       INTEGER NOT NULL,
    skip       INTEGER NOT NULL,
    reported   INTEGER NOT NULL,
    resolved   TEXT NOT NULL,
    created    INTEGER NOT NULL,
    updated    INTEGER NOT NULL,
    result     BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX commands_digest ON commands (pairing, digest);
CREATE UNIQUE INDEX commands_open ON commands (pairing, sequence) WHERE state < 4;
CREATE INDEX commands_next ON commands (pairing, sequence) WHERE state = 0 OR skip = 1;
CREATE INDEX commands_expiry ON commands (expires) WHERE state < 4;
CREATE INDEX commands_ended ON commands (updated) WHERE state >= 4;
CREATE INDEX commands_unknown ON commands (pairing, sequence) WHERE state = 9;

-- The bytes of a command, apart from the row that changes. The envelope goes when the command has ended.
CREATE TABLE envelopes (
    command   INTEGER PRIMARY KEY REFERENCES commands (n) ON DELETE CASCADE,
    header    BLOB NOT NULL,
    body_hash BLOB NOT NULL,
    signature BLOB NOT NULL,
    envelope  BLOB NOT NULL
) STRICT;

CREATE TABLE event_epochs (
    n       INTEGER PRIMARY KEY,
    pairing BLOB NOT NULL,
    epoch   BLOB NOT NULL,
    highest INTEGER NOT NULL,
    UNIQUE (pairing, epoch)
) STRICT;

CREATE INDEX event_epochs_newest ON event_epochs (pairing, n);

CREATE TABLE event_boxes (
    epoch   INTEGER NOT NULL REFERENCES event_epochs (n) ON DELETE CASCADE,
    surface BLOB NOT NULL,
    box     BLOB NOT NULL,
    PRIMARY KEY (epoch, surface)
) STRICT, WITHOUT ROWID;

CREATE TABLE event_batches (
    n       INTEGER PRIMARY KEY,
    pairing BLOB NOT NULL,
    cursor  INTEGER NOT NULL,
    epoch   INTEGER NOT NULL REFERENCES event_epochs (n),
    seq     INTEGER NOT NULL,
    class   TEXT NOT NULL,
    request BLOB NOT NULL,
    time    INTEGER NOT NULL,
    stored  INTEGER NOT NULL,
    open    INTEGER NOT NULL,
    bytes   BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX event_batches_cursor ON event_batches (pairing, cursor);
CREATE UNIQUE INDEX event_batches_seq ON event_batches (epoch, seq);
CREATE INDEX event_batches_open ON event_batches (pairing, cursor) WHERE open = 1;
