-- +goose Up

-- What this journal is. One row.
CREATE TABLE meta (
	one        INTEGER PRIMARY KEY CHECK (one = 1),
	journal_id BLOB    NOT NULL, -- 16 random bytes
	counter    INTEGER NOT NULL, -- raised at each start
	machine    TEXT    NOT NULL, -- the machine it belongs to; changed by recover and enrol only
	last_time  INTEGER NOT NULL, -- unix ms; the newest time that was ever written
	recovered  INTEGER NOT NULL DEFAULT 0 -- commands that a crash left started and that were resolved since
) STRICT;

CREATE TABLE pairing (
	pairing        TEXT    PRIMARY KEY,
	broker_url     TEXT    NOT NULL,
	broker_key     BLOB    NOT NULL,
	page_origin    TEXT    NOT NULL,
	host           TEXT    NOT NULL,
	enrolled       INTEGER NOT NULL, -- unix ms, like every time here
	last_epoch     BLOB    NOT NULL DEFAULT x'', -- of event keys; the next announcement names it
	revoked        INTEGER NOT NULL DEFAULT 0,
	revoked_by     TEXT    NOT NULL DEFAULT '',
	told           INTEGER NOT NULL DEFAULT 0, -- the broker knows of the revocation
	locked         TEXT    NOT NULL DEFAULT '', -- why; empty is not locked
	high_water     INTEGER NOT NULL DEFAULT 0,  -- highest mailbox sequence
	policy         BLOB    NOT NULL,            -- JSON as the owner set it; what does not parse means no
	policy_version INTEGER NOT NULL
) STRICT;

CREATE TABLE surface (
	pairing     TEXT    NOT NULL REFERENCES pairing,
	surface     TEXT    NOT NULL,
	label       TEXT    NOT NULL,
	scopes      TEXT    NOT NULL, -- names, space between
	ssig        BLOB    NOT NULL,
	skem        BLOB    NOT NULL,
	grant_bytes BLOB    NOT NULL,
	serial      INTEGER NOT NULL,
	issued      INTEGER NOT NULL,
	not_after   INTEGER NOT NULL,
	revoked     INTEGER NOT NULL DEFAULT 0,
	revoked_by  TEXT    NOT NULL DEFAULT '',
	last_use    INTEGER NOT NULL DEFAULT 0,
	last_seq    INTEGER NOT NULL DEFAULT 0,
	last_hash   BLOB    NOT NULL, -- 32 zero bytes before the first envelope
	resync      INTEGER NOT NULL DEFAULT 0, -- after recover: the next header's seq and prev are taken as they are
	PRIMARY KEY (pairing, surface)
) STRICT;

CREATE TABLE link_session (
	pairing TEXT    NOT NULL REFERENCES pairing,
	pid     BLOB    NOT NULL,
	mode    TEXT    NOT NULL, -- link, code
	state   TEXT    NOT NULL, -- open, claimed, revealed, confirmed, done, burned, expired, cancelled
	decide  INTEGER NOT NULL,
	label   TEXT    NOT NULL,
	network TEXT    NOT NULL,
	opened  INTEGER NOT NULL,
	expires INTEGER NOT NULL,
	reason  TEXT    NOT NULL,
	PRIMARY KEY (pairing, pid)
) STRICT;

-- Every command that was ever delivered, skipped or stopped, and what came of it.
CREATE TABLE inbox (
	id        INTEGER PRIMARY KEY,
	pairing   TEXT    NOT NULL REFERENCES pairing,
	command   TEXT    NOT NULL, -- the mailbox's id
	envelope  BLOB,             -- SHA-256 of the envelope; null for a stop of what was never seen
	sequence  INTEGER NOT NULL, -- the mailbox's
	surface   TEXT    NOT NULL,
	kind      TEXT    NOT NULL,
	seq       INTEGER NOT NULL, -- the surface's
	commitment BLOB  NOT NULL,
	iat       INTEGER NOT NULL,
	exp       INTEGER NOT NULL,
	state     TEXT    NOT NULL, -- received, waiting_local, started, done, skipped
	confirmed INTEGER NOT NULL DEFAULT 0, -- a person at the desktop said yes
	exec      BLOB    NOT NULL, -- wire.ExecCommand; emptied when done
	digest    BLOB    NOT NULL, -- request_sha256 of a decision
	target    TEXT    NOT NULL DEFAULT '', -- surface of revoke_surface
	ref       TEXT    NOT NULL DEFAULT '',
	started   INTEGER NOT NULL DEFAULT 0,
	run       INTEGER NOT NULL DEFAULT 0, -- counter of the start that set started: lower than ours means a crash lies between
	verdict   TEXT    NOT NULL DEFAULT '', -- terminal state, when done
	reason    TEXT    NOT NULL DEFAULT '',
	result    BLOB    NOT NULL, -- sealed and signed; empty when no surface can be named
	durable   INTEGER NOT NULL DEFAULT 0, -- the broker holds the result
	received  INTEGER NOT NULL,
	ended     INTEGER NOT NULL DEFAULT 0,
	UNIQUE (pairing, command)
) STRICT;
CREATE UNIQUE INDEX inbox_envelope ON inbox (pairing, envelope) WHERE envelope IS NOT NULL;
CREATE INDEX inbox_open ON inbox (pairing, id) WHERE durable = 0;
CREATE INDEX inbox_age ON inbox (ended) WHERE durable = 1;

-- Sealed event batches which the broker has not acknowledged, in the order they were sealed.
CREATE TABLE outbox (
	id      INTEGER PRIMARY KEY AUTOINCREMENT,
	pairing TEXT    NOT NULL REFERENCES pairing,
	epoch   BLOB    NOT NULL,
	seq     INTEGER NOT NULL,
	class   TEXT    NOT NULL,
	batch   BLOB    NOT NULL,
	at      INTEGER NOT NULL,
	UNIQUE (pairing, epoch, seq)
) STRICT;

-- Approvals and questions, kept byte for byte: a decision's digest covers them.
CREATE TABLE request (
	pairing    TEXT    NOT NULL REFERENCES pairing,
	request    TEXT    NOT NULL,
	session    TEXT    NOT NULL,
	kind       TEXT    NOT NULL,
	bytes      BLOB    NOT NULL,
	exec       BLOB    NOT NULL, -- wire.ExecRequest, for the executor's catching up after a start
	digest     BLOB    NOT NULL,
	ref        BLOB    NOT NULL, -- random; what the broker may see
	opened     INTEGER NOT NULL,
	closed     INTEGER NOT NULL DEFAULT 0,
	outcome    TEXT    NOT NULL DEFAULT '',
	decided_by TEXT    NOT NULL DEFAULT '', -- a label, "desk" for the desktop itself
	claimed    BLOB,                        -- envelope of the decision that is being carried out
	PRIMARY KEY (pairing, request)
) STRICT;
CREATE INDEX request_open ON request (pairing, opened) WHERE closed = 0;

-- The desktop's audit log: exact bytes, written once.
CREATE TABLE audit (
	seq  INTEGER PRIMARY KEY,
	at   INTEGER NOT NULL,
	line BLOB    NOT NULL
) STRICT;

-- The values behind a line's salted commitments; erasing one changes no byte of the line.
CREATE TABLE audit_value (
	seq        INTEGER NOT NULL REFERENCES audit,
	field      TEXT    NOT NULL,
	commitment TEXT    NOT NULL,
	salt       BLOB    NOT NULL,
	text       TEXT    NOT NULL,
	PRIMARY KEY (seq, field)
) STRICT;

-- Announcements of epochs with their sealed boxes, until the broker has them: the keys are in memory only, and the
-- batches in the outbox cannot be read without.
CREATE TABLE epoch (
	id      INTEGER PRIMARY KEY AUTOINCREMENT,
	pairing TEXT    NOT NULL REFERENCES pairing,
	epoch   BLOB    NOT NULL,
	frame   BLOB    NOT NULL,
	UNIQUE (pairing, epoch)
) STRICT;

-- Turns of the runtime, whoever began them, until the journal has their end.
CREATE TABLE turn (
	ref      TEXT    PRIMARY KEY, -- the user message's id
	session  TEXT    NOT NULL,
	pairing  TEXT    NOT NULL, -- of the prompt's surface; empty for a turn begun at the desktop
	envelope BLOB    NOT NULL, -- of the prompt; empty likewise
	started  INTEGER NOT NULL,
	ended    INTEGER NOT NULL DEFAULT 0,
	outcome  TEXT    NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX turn_open ON turn (started) WHERE ended = 0;
