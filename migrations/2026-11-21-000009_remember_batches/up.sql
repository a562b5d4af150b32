SET LOCAL lock_timeout = '2s';

ALTER TABLE idempotency_keys ADD COLUMN upload_ids uuid[];

COMMENT ON TABLE idempotency_keys IS 'Idempotency-Key headers seen in the last 24 hours, and the uploads that each of them led to.';
COMMENT ON COLUMN idempotency_keys.upload_id IS 'The upload issued for it; of a batch, the first.';
COMMENT ON COLUMN idempotency_keys.upload_ids IS 'Of a batch: the upload issued for each file, in their order, null where the file was refused. Null when the request was for one upload.';
