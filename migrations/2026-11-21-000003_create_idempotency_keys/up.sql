CREATE TABLE idempotency_keys (
    issuer text NOT NULL,
    subject text NOT NULL,
    key text NOT NULL,
    request_sha256 bytea NOT NULL,
    upload_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (issuer, subject, key),
    CONSTRAINT idempotency_keys_request_sha256_check CHECK (octet_length(request_sha256) = 32)
);

CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);

COMMENT ON TABLE idempotency_keys IS 'Idempotency-Key headers seen in the last 24 hours, and the upload that each of them led to.';
COMMENT ON COLUMN idempotency_keys.issuer IS 'iss of the token that asked: keys of different users never meet.';
COMMENT ON COLUMN idempotency_keys.subject IS 'sub of the token that asked.';
COMMENT ON COLUMN idempotency_keys.key IS 'The header as sent.';
COMMENT ON COLUMN idempotency_keys.request_sha256 IS 'SHA-256 of the request that used the key first; another request under it is refused.';
COMMENT ON COLUMN idempotency_keys.upload_id IS 'The upload issued for it.';
COMMENT ON COLUMN idempotency_keys.created_at IS 'First use.';
