SET LOCAL lock_timeout = '2s';

ALTER TABLE upload_intents ADD COLUMN file_size_is_limit boolean NOT NULL DEFAULT false;

COMMENT ON COLUMN upload_intents.file_size IS 'Promised size in bytes, bound in the signature: exact, or where file_size_is_limit the largest allowed. Of a verified object, its size.';
COMMENT ON COLUMN upload_intents.file_size_is_limit IS 'Whether the client did not know the size, so that file_size is a limit; false once an object was verified.';
