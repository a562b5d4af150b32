CREATE TABLE drift_runs (
    id uuid NOT NULL,
    bucket text NOT NULL,
    listed_to text,
    is_listed boolean NOT NULL DEFAULT false,
    checked_to uuid,
    counts jsonb NOT NULL,
    started_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    finished_at timestamptz,
    CONSTRAINT drift_runs_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE drift_runs IS 'Comparisons of a bucket with the uploads: how far each has come, so that one that was interrupted can go on.';
COMMENT ON COLUMN drift_runs.id IS 'UUID version 7.';
COMMENT ON COLUMN drift_runs.bucket IS 'The bucket.';
COMMENT ON COLUMN drift_runs.listed_to IS 'Last key of the listing that has been compared; null before the first page.';
COMMENT ON COLUMN drift_runs.is_listed IS 'Whether the whole bucket has been.';
COMMENT ON COLUMN drift_runs.checked_to IS 'Last upload whose object has been looked for; null before the first.';
COMMENT ON COLUMN drift_runs.counts IS 'What has been found so far.';
COMMENT ON COLUMN drift_runs.started_at IS 'When it began.';
COMMENT ON COLUMN drift_runs.updated_at IS 'When it came this far.';
COMMENT ON COLUMN drift_runs.finished_at IS 'When it was through; null before.';

CREATE TABLE drift_objects (
    run_id uuid NOT NULL,
    upload_id uuid NOT NULL,
    CONSTRAINT drift_objects_pkey PRIMARY KEY (run_id, upload_id)
);

COMMENT ON TABLE drift_objects IS 'Confirmed uploads whose object a run has met in the bucket. Empty when no run is under way.';
COMMENT ON COLUMN drift_objects.run_id IS 'The run.';
COMMENT ON COLUMN drift_objects.upload_id IS 'The upload.';
