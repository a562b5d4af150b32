DROP TABLE webhook_attempts;
DROP TABLE webhook_deliveries;
DROP TABLE inspections;
DROP TABLE upload_copies;

DROP INDEX upload_intents_look_at_idx;

-- What waits for a scanner is confirmed again, by whoever asks next.
UPDATE upload_intents SET state = 'issued', settled_via = NULL, etag = NULL, version_id = NULL WHERE state = 'inspecting';

ALTER TABLE upload_intents
    DROP CONSTRAINT upload_intents_state_check,
    DROP CONSTRAINT upload_intents_settled_check,
    DROP CONSTRAINT upload_intents_confirmed_check,
    ADD CONSTRAINT upload_intents_state_check CHECK (state IN ('issued', 'confirmed', 'rejected', 'aborted', 'expired')),
    ADD CONSTRAINT upload_intents_settled_check CHECK ((state = 'issued') = (settled_at IS NULL)),
    ADD CONSTRAINT upload_intents_confirmed_check CHECK (state <> 'confirmed' OR etag IS NOT NULL),
    DROP COLUMN stored_key,
    DROP COLUMN look_at;

COMMENT ON COLUMN upload_intents.object_key IS 'Key of the object; its last segment is file_name in JSON.';
COMMENT ON COLUMN upload_intents.state IS 'issued, or one of the final states confirmed, rejected, aborted, expired.';
COMMENT ON COLUMN upload_intents.settled_via IS 'What led to the final state: callback, event, sweeper or owner.';
COMMENT ON COLUMN upload_intents.mismatches IS 'For rejected uploads: which promises the object broke, with what was expected and found.';
