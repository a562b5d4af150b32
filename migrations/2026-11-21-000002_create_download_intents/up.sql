CREATE TABLE download_intents (
    id uuid NOT NULL,
    upload_id uuid NOT NULL,
    issuer text NOT NULL,
    subject text NOT NULL,
    tenant text,
    policy text NOT NULL,
    policy_version text NOT NULL,
    client_network text,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT download_intents_pkey PRIMARY KEY (id),
    CONSTRAINT download_intents_client_network_check CHECK (client_network LIKE '%/%' AND masklen(client_network::inet) >= 0),
    CONSTRAINT download_intents_expires_at_check CHECK (expires_at > created_at)
) PARTITION BY RANGE (id);

-- Catches rows whose month has no partition yet, so that a late maintenance run never refuses a download.
CREATE TABLE download_intents_default PARTITION OF download_intents DEFAULT;

COMMENT ON TABLE download_intents IS 'Who was given a download URL of which upload, for which network, until when.';
COMMENT ON COLUMN download_intents.id IS 'UUID version 7: the time of issue is in it, and a month is a range of ids.';
COMMENT ON COLUMN download_intents.upload_id IS 'The confirmed upload that is read. No foreign key: months of uploads are dropped on their own schedule.';
COMMENT ON COLUMN download_intents.issuer IS 'iss of the token that asked; with subject it names the reader.';
COMMENT ON COLUMN download_intents.subject IS 'sub of the token that asked.';
COMMENT ON COLUMN download_intents.tenant IS 'Tenant claim of the token that asked, where its issuer has one.';
COMMENT ON COLUMN download_intents.policy IS 'Name of the policy that decided.';
COMMENT ON COLUMN download_intents.policy_version IS 'Version of the policy file that decided.';
COMMENT ON COLUMN download_intents.client_network IS 'Network that the URL is scoped to, with its mask; null when the policy does not scope.';
COMMENT ON COLUMN download_intents.created_at IS 'Time of issue.';
COMMENT ON COLUMN download_intents.expires_at IS 'End of the URL that was handed out.';
