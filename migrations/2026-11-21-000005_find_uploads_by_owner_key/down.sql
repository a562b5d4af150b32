DROP INDEX upload_intents_owner_idx;
CREATE INDEX upload_intents_owner_idx ON upload_intents (subject, issuer, id DESC);

ALTER TABLE upload_intents DROP COLUMN owner_key;
