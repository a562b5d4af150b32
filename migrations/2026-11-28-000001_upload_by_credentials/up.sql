SET LOCAL lock_timeout = '2s';

-- NOT VALID: every row that is there was held to a stricter list.
ALTER TABLE upload_intents
    DROP CONSTRAINT upload_intents_method_check,
    ADD CONSTRAINT upload_intents_method_check CHECK (method IN ('put', 'post', 'multipart', 'credentials')) NOT VALID;

COMMENT ON COLUMN upload_intents.method IS 'put: a presigned PUT. post: a presigned form. multipart: presigned parts. credentials: what the client signs itself, with credentials for an area of the bucket.';
