-- What the older version has no name for, and what leads to it. Its parts are what the sweeper finds.
DELETE FROM idempotency_keys USING upload_intents WHERE method = 'multipart' AND id = upload_id;
DELETE FROM upload_copies USING upload_intents WHERE method = 'multipart' AND id = upload_id;
DELETE FROM inspections USING upload_intents WHERE method = 'multipart' AND id = upload_id;
DELETE FROM upload_intents WHERE method = 'multipart';
ALTER TABLE upload_intents
    DROP COLUMN multipart_upload_id,
    DROP COLUMN part_size,
    DROP COLUMN has_part_checksums;
