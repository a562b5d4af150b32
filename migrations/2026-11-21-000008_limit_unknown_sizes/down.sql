SET LOCAL lock_timeout = '2s';

COMMENT ON COLUMN upload_intents.file_size IS 'Promised size in bytes, bound in the signature.';

ALTER TABLE upload_intents DROP COLUMN file_size_is_limit;
