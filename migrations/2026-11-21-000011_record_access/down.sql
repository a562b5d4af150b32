SET LOCAL lock_timeout = '2s';

DROP INDEX download_intents_expires_at_idx;
DROP INDEX download_intents_upload_id_idx;
DROP INDEX download_intents_subject_idx;
DROP TABLE access_events;
