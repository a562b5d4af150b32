SET LOCAL lock_timeout = '2s';

-- What the older version has no name for. Its objects are what drift reports.
DELETE FROM upload_intents WHERE method = 'credentials';
ALTER TABLE upload_intents
    DROP CONSTRAINT upload_intents_method_check,
    ADD CONSTRAINT upload_intents_method_check CHECK (method IN ('put', 'post', 'multipart'));

COMMENT ON COLUMN upload_intents.method IS 'How the bytes travel: put, post or multipart.';
