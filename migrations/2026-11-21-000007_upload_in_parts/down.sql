ALTER TABLE upload_intents
    DROP COLUMN multipart_upload_id,
    DROP COLUMN part_size,
    DROP COLUMN has_part_checksums;
