SET LOCAL lock_timeout = '2s';

-- NOT VALID: the rows that are there have none of these and are right, and reading them all would hold the lock.
ALTER TABLE upload_intents
    ADD COLUMN multipart_upload_id text,
    ADD COLUMN part_size bigint,
    ADD COLUMN has_part_checksums boolean,
    ADD CONSTRAINT upload_intents_multipart_upload_id_check CHECK ((method = 'multipart') = (multipart_upload_id IS NOT NULL)) NOT VALID,
    ADD CONSTRAINT upload_intents_part_size_check CHECK (part_size IS NULL OR (method = 'multipart' AND part_size BETWEEN 5242880 AND 5368709120)) NOT VALID,
    ADD CONSTRAINT upload_intents_has_part_checksums_check CHECK ((method = 'multipart') = (has_part_checksums IS NOT NULL)) NOT VALID;

COMMENT ON COLUMN upload_intents.multipart_upload_id IS 'The store''s id of the multipart upload; null for other methods.';
COMMENT ON COLUMN upload_intents.part_size IS 'Length in bytes of every part but for the last, which has the rest; null where the client cuts the file as it likes, and for other methods than multipart.';
COMMENT ON COLUMN upload_intents.has_part_checksums IS 'Whether every part is bound to its SHA-256, which the store has to know from the beginning; null for other methods than multipart.';
