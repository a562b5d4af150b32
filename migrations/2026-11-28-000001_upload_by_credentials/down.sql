SET LOCAL lock_timeout = '2s';

-- What the older version has no name for, and what leads to it. Its objects are what drift reports.
DELETE FROM idempotency_keys USING upload_intents
    WHERE method = 'credentials' AND (id = upload_id OR id = ANY (upload_ids));
DELETE FROM upload_copies USING upload_intents WHERE method = 'credentials' AND id = upload_id;
DELETE FROM inspections USING upload_intents WHERE method = 'credentials' AND id = upload_id;
DELETE FROM upload_intents WHERE method = 'credentials';
ALTER TABLE upload_intents
    DROP CONSTRAINT upload_intents_method_check,
    ADD CONSTRAINT upload_intents_method_check CHECK (method IN ('put', 'post', 'multipart'));

COMMENT ON COLUMN upload_intents.method IS 'How the bytes travel: put, post or multipart.';
