SET LOCAL lock_timeout = '2s';

ALTER TABLE idempotency_keys DROP COLUMN upload_ids;

COMMENT ON TABLE idempotency_keys IS 'Idempotency-Key headers seen in the last 24 hours, and the upload that each of them led to.';
COMMENT ON COLUMN idempotency_keys.upload_id IS 'The upload issued for it.';
