-- Digests are their 32 bytes. `boot` and `kept` say whether a row may be believed: kept = 1, or made in this boot.
-- `seq` only grows, also over deleted rows: what was made before a flush has a lower one than what came after.

CREATE TABLE contents (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       TEXT    NOT NULL, -- blob, tree, folder
    digest     BLOB    NOT NULL,
    size_bytes INTEGER NOT NULL,
    boot       TEXT    NOT NULL,
    kept       INTEGER NOT NULL,
    UNIQUE (kind, digest)
) STRICT;
CREATE INDEX contents_unkept ON contents (boot) WHERE kept = 0;

-- Which operation gave which content, and the layer that was made of it first.
CREATE TABLE origins (
    op      BLOB    NOT NULL,
    content BLOB    NOT NULL,
    layer   BLOB    NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (op, content)
) STRICT, WITHOUT ROWID;
CREATE INDEX origins_by_layer ON origins (layer);

CREATE TABLE layer_blobs (
    layer           BLOB    NOT NULL,
    codec           TEXT    NOT NULL,
    diff_id         BLOB    NOT NULL,
    blob            BLOB    NOT NULL,
    size_bytes      INTEGER NOT NULL,
    diff_size_bytes INTEGER NOT NULL,
    media_type      TEXT    NOT NULL,
    PRIMARY KEY (layer, codec)
) STRICT, WITHOUT ROWID;
CREATE INDEX layer_blobs_by_blob ON layer_blobs (blob);
CREATE INDEX layer_blobs_by_diff_id ON layer_blobs (diff_id);

CREATE TABLE records (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,
    definition_key BLOB    NOT NULL,
    content_key    BLOB,
    op             BLOB    NOT NULL,
    stage          TEXT    NOT NULL,
    instruction    TEXT    NOT NULL,
    boot           TEXT    NOT NULL,
    kept           INTEGER NOT NULL,
    last_used      INTEGER NOT NULL,
    body           TEXT    NOT NULL  -- the record as JSON
) STRICT;
CREATE INDEX records_by_definition_key ON records (definition_key);
CREATE INDEX records_by_content_key ON records (content_key) WHERE content_key IS NOT NULL;
CREATE INDEX records_by_op ON records (op);
CREATE INDEX records_by_instruction ON records (instruction);
CREATE INDEX records_unkept ON records (boot) WHERE kept = 0;

CREATE TABLE images (
    manifest   BLOB    PRIMARY KEY,
    config     BLOB,              -- none for an index
    descriptor TEXT    NOT NULL,  -- of the manifest or index, as JSON
    added      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tags (
    name     TEXT PRIMARY KEY,
    manifest BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_by_manifest ON tags (manifest);

CREATE TABLE tag_history (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    name     TEXT    NOT NULL,
    manifest BLOB    NOT NULL,
    at       INTEGER NOT NULL
) STRICT;
CREATE INDEX tag_history_by_name ON tag_history (name);
