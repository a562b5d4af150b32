ALTER TABLE upload_intents
    ADD COLUMN stored_key text,
    ADD COLUMN look_at timestamptz,
    DROP CONSTRAINT upload_intents_state_check,
    DROP CONSTRAINT upload_intents_settled_check,
    DROP CONSTRAINT upload_intents_confirmed_check,
    ADD CONSTRAINT upload_intents_state_check CHECK (state IN ('issued', 'inspecting', 'confirmed', 'rejected', 'aborted', 'expired')),
    ADD CONSTRAINT upload_intents_settled_check CHECK ((state IN ('issued', 'inspecting')) = (settled_at IS NULL)),
    ADD CONSTRAINT upload_intents_confirmed_check CHECK (state NOT IN ('inspecting', 'confirmed') OR etag IS NOT NULL);

-- What was issued before is looked at as what is issued from now on.
UPDATE upload_intents SET look_at = expires_at WHERE state <> 'confirmed';

CREATE INDEX upload_intents_look_at_idx ON upload_intents (look_at) WHERE look_at IS NOT NULL;

COMMENT ON COLUMN upload_intents.object_key IS 'Key that the client writes to; its last segment is file_name in JSON.';
COMMENT ON COLUMN upload_intents.state IS 'issued, inspecting, or one of the final states confirmed, rejected, aborted, expired.';
COMMENT ON COLUMN upload_intents.settled_via IS 'What led to the final state, or to the inspection before it: callback, event, sweeper or owner.';
COMMENT ON COLUMN upload_intents.mismatches IS 'For rejected uploads: which promises the object broke. For confirmed ones: what a warning is about.';
COMMENT ON COLUMN upload_intents.stored_key IS 'Key of the verified object where it is not object_key: the copy of a staged upload, which no client can write to.';
COMMENT ON COLUMN upload_intents.look_at IS 'When the sweeper looks at this upload next: to confirm, to expire or to tidy up; null when nothing is left to do. Moved ahead by whoever looks, which keeps others away.';

CREATE TABLE upload_copies (
    upload_id uuid NOT NULL,
    object_key text NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT upload_copies_pkey PRIMARY KEY (upload_id, object_key)
);

COMMENT ON TABLE upload_copies IS 'Copies of staged uploads that were begun and are not known to be the confirmed one or removed: written before the copy, so that one whose process died is found.';
COMMENT ON COLUMN upload_copies.upload_id IS 'The upload.';
COMMENT ON COLUMN upload_copies.object_key IS 'Key of the copy: each attempt has its own, so no attempt can overwrite what another has verified.';
COMMENT ON COLUMN upload_copies.created_at IS 'When the copy was begun.';

CREATE TABLE inspections (
    upload_id uuid NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    last_error text,
    CONSTRAINT inspections_pkey PRIMARY KEY (upload_id),
    CONSTRAINT inspections_attempts_check CHECK (attempts >= 0)
);

CREATE INDEX inspections_next_attempt_at_idx ON inspections (next_attempt_at);

COMMENT ON TABLE inspections IS 'Uploads that wait for the scanner.';
COMMENT ON COLUMN inspections.upload_id IS 'The upload, whose state is inspecting.';
COMMENT ON COLUMN inspections.attempts IS 'Times that the scanner was asked.';
COMMENT ON COLUMN inspections.next_attempt_at IS 'When to ask next. Moved ahead by whoever asks, which keeps others away.';
COMMENT ON COLUMN inspections.created_at IS 'When the upload was verified.';
COMMENT ON COLUMN inspections.last_error IS 'Why the last attempt gave no answer.';

CREATE TABLE webhook_deliveries (
    event_id uuid NOT NULL,
    endpoint text NOT NULL,
    upload_id uuid NOT NULL,
    event_type text NOT NULL,
    payload text NOT NULL,
    state text NOT NULL DEFAULT 'pending',
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    created_at timestamptz NOT NULL,
    settled_at timestamptz,
    CONSTRAINT webhook_deliveries_pkey PRIMARY KEY (event_id, endpoint),
    CONSTRAINT webhook_deliveries_state_check CHECK (state IN ('pending', 'delivered', 'dead')),
    CONSTRAINT webhook_deliveries_attempts_check CHECK (attempts >= 0),
    CONSTRAINT webhook_deliveries_pending_check CHECK ((state = 'pending') = (next_attempt_at IS NOT NULL) AND (state = 'pending') = (settled_at IS NULL))
);

CREATE INDEX webhook_deliveries_due_idx ON webhook_deliveries (endpoint, next_attempt_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_order_idx ON webhook_deliveries (endpoint, upload_id, event_id) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_dead_idx ON webhook_deliveries (endpoint, event_id) WHERE state = 'dead';
CREATE INDEX webhook_deliveries_settled_at_idx ON webhook_deliveries (settled_at) WHERE state = 'delivered';

COMMENT ON TABLE webhook_deliveries IS 'Outbox: written in the transaction that changes the upload, so an event is neither lost nor invented.';
COMMENT ON COLUMN webhook_deliveries.event_id IS 'UUID version 7: webhook-id, the same in every attempt and for every endpoint.';
COMMENT ON COLUMN webhook_deliveries.endpoint IS 'Name of the endpoint in the configuration.';
COMMENT ON COLUMN webhook_deliveries.upload_id IS 'The upload that the event is about: events of one upload are delivered in order.';
COMMENT ON COLUMN webhook_deliveries.event_type IS 'For example upload.confirmed.';
COMMENT ON COLUMN webhook_deliveries.payload IS 'The body, byte for byte: what is signed must not change between attempts.';
COMMENT ON COLUMN webhook_deliveries.state IS 'pending, delivered, or dead after the last attempt.';
COMMENT ON COLUMN webhook_deliveries.attempts IS 'Attempts made since it happened or was last retried by hand.';
COMMENT ON COLUMN webhook_deliveries.next_attempt_at IS 'When to try next. Moved ahead by whoever tries, which keeps others away.';
COMMENT ON COLUMN webhook_deliveries.created_at IS 'When the event happened.';
COMMENT ON COLUMN webhook_deliveries.settled_at IS 'When it was delivered or given up.';

CREATE TABLE webhook_attempts (
    event_id uuid NOT NULL,
    endpoint text NOT NULL,
    attempt integer NOT NULL,
    started_at timestamptz NOT NULL,
    duration_ms integer NOT NULL,
    status integer,
    error text,
    CONSTRAINT webhook_attempts_pkey PRIMARY KEY (event_id, endpoint, attempt),
    CONSTRAINT webhook_attempts_outcome_check CHECK ((status IS NULL) <> (error IS NULL))
);

COMMENT ON TABLE webhook_attempts IS 'What came of each attempt to deliver.';
COMMENT ON COLUMN webhook_attempts.event_id IS 'The event.';
COMMENT ON COLUMN webhook_attempts.endpoint IS 'The endpoint.';
COMMENT ON COLUMN webhook_attempts.attempt IS 'Counted from 1.';
COMMENT ON COLUMN webhook_attempts.started_at IS 'When it began.';
COMMENT ON COLUMN webhook_attempts.duration_ms IS 'How long it took, in milliseconds.';
COMMENT ON COLUMN webhook_attempts.status IS 'Status of the answer; null when there was none.';
COMMENT ON COLUMN webhook_attempts.error IS 'Why there was no answer; null when there was one.';
