CREATE TABLE upload_intents (
    id uuid NOT NULL,
    issuer text NOT NULL,
    subject text NOT NULL,
    tenant text,
    original_file_name text NOT NULL,
    upload_to text NOT NULL,
    bucket text NOT NULL,
    object_key text NOT NULL,
    file_size bigint NOT NULL,
    content_type text NOT NULL,
    checksum_sha256 bytea,
    metadata jsonb NOT NULL,
    method text NOT NULL,
    policy text NOT NULL,
    policy_version text NOT NULL,
    client_network text,
    state text NOT NULL DEFAULT 'issued',
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    confirm_until timestamptz NOT NULL,
    settled_at timestamptz,
    settled_via text,
    etag text,
    version_id text,
    mismatches jsonb,
    CONSTRAINT upload_intents_pkey PRIMARY KEY (id),
    CONSTRAINT upload_intents_file_size_check CHECK (file_size >= 0),
    CONSTRAINT upload_intents_checksum_sha256_check CHECK (octet_length(checksum_sha256) = 32),
    CONSTRAINT upload_intents_method_check CHECK (method IN ('put', 'post', 'multipart')),
    CONSTRAINT upload_intents_client_network_check CHECK (client_network LIKE '%/%' AND masklen(client_network::inet) >= 0),
    CONSTRAINT upload_intents_state_check CHECK (state IN ('issued', 'confirmed', 'rejected', 'aborted', 'expired')),
    CONSTRAINT upload_intents_settled_via_check CHECK (settled_via IN ('callback', 'event', 'sweeper', 'owner')),
    CONSTRAINT upload_intents_expires_at_check CHECK (expires_at > created_at AND confirm_until >= expires_at),
    CONSTRAINT upload_intents_settled_check CHECK ((state = 'issued') = (settled_at IS NULL)),
    CONSTRAINT upload_intents_confirmed_check CHECK (state <> 'confirmed' OR etag IS NOT NULL)
) PARTITION BY RANGE (id);

-- Catches rows whose month has no partition yet, so that a late maintenance run never refuses an upload.
CREATE TABLE upload_intents_default PARTITION OF upload_intents DEFAULT;

CREATE INDEX upload_intents_owner_idx ON upload_intents (subject, issuer, id DESC);

COMMENT ON TABLE upload_intents IS 'Who was allowed to upload which file, from where, until when, and what became of it.';
COMMENT ON COLUMN upload_intents.id IS 'UUID version 7: the time of issue is in it, and a month is a range of ids.';
COMMENT ON COLUMN upload_intents.issuer IS 'iss of the token that asked; with subject it names the owner.';
COMMENT ON COLUMN upload_intents.subject IS 'sub of the token that asked; created_by in JSON.';
COMMENT ON COLUMN upload_intents.tenant IS 'Tenant claim of the token that asked, where its issuer has one.';
COMMENT ON COLUMN upload_intents.original_file_name IS 'File name as the user wrote it.';
COMMENT ON COLUMN upload_intents.upload_to IS 'Fixed prefix of the key template at the time of issue.';
COMMENT ON COLUMN upload_intents.bucket IS 'Bucket that the object lies in.';
COMMENT ON COLUMN upload_intents.object_key IS 'Key of the object; its last segment is file_name in JSON.';
COMMENT ON COLUMN upload_intents.file_size IS 'Promised size in bytes, bound in the signature.';
COMMENT ON COLUMN upload_intents.content_type IS 'Promised media type, bound in the signature.';
COMMENT ON COLUMN upload_intents.checksum_sha256 IS 'Promised SHA-256 digest, bound in the signature; null when none was given.';
COMMENT ON COLUMN upload_intents.metadata IS 'User metadata (x-amz-meta-*), bound in the signature.';
COMMENT ON COLUMN upload_intents.method IS 'How the bytes travel: put, post or multipart.';
COMMENT ON COLUMN upload_intents.policy IS 'Name of the policy that decided.';
COMMENT ON COLUMN upload_intents.policy_version IS 'Version of the policy file that decided last.';
COMMENT ON COLUMN upload_intents.client_network IS 'Network that the last URL is scoped to, with its mask; null when the policy does not scope.';
COMMENT ON COLUMN upload_intents.state IS 'issued, or one of the final states confirmed, rejected, aborted, expired.';
COMMENT ON COLUMN upload_intents.created_at IS 'Time of issue.';
COMMENT ON COLUMN upload_intents.expires_at IS 'End of the last URL that was handed out.';
COMMENT ON COLUMN upload_intents.confirm_until IS 'Last instant at which a finished upload is still confirmed.';
COMMENT ON COLUMN upload_intents.settled_at IS 'Time at which a final state was reached; confirmed_at in JSON for confirmed uploads.';
COMMENT ON COLUMN upload_intents.settled_via IS 'What led to the final state: callback, event, sweeper or owner.';
COMMENT ON COLUMN upload_intents.etag IS 'ETag of the verified object, without quotes.';
COMMENT ON COLUMN upload_intents.version_id IS 'Version of the verified object where the bucket is versioned.';
COMMENT ON COLUMN upload_intents.mismatches IS 'For rejected uploads: which promises the object broke, with what was expected and found.';
