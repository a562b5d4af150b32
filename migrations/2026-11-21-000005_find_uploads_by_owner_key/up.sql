-- Two texts in every entry made this index the dearest part of an insert.
ALTER TABLE upload_intents ADD COLUMN owner_key bigint;
UPDATE upload_intents
    SET owner_key = ('x' || substr(encode(sha256(convert_to(issuer || chr(10) || subject, 'UTF8')), 'hex'), 1, 16))::bit(64)::bigint;
ALTER TABLE upload_intents ALTER COLUMN owner_key SET NOT NULL;

DROP INDEX upload_intents_owner_idx;
CREATE INDEX upload_intents_owner_idx ON upload_intents (owner_key, id);

COMMENT ON COLUMN upload_intents.owner_key IS 'First 64 bits of the SHA-256 of issuer, a line feed and subject: what uploads of one owner are found by.';
