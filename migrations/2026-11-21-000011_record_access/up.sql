SET LOCAL lock_timeout = '2s';

CREATE TABLE access_events (
    id uuid NOT NULL,
    kind text NOT NULL,
    issuer text,
    subject text,
    tenant text,
    upload_id uuid,
    download_id uuid,
    policy text,
    client_network text,
    reason text,
    actor_issuer text,
    actor_subject text,
    CONSTRAINT access_events_pkey PRIMARY KEY (id),
    CONSTRAINT access_events_kind_check CHECK (kind IN ('redeemed', 'refused', 'revoked')),
    CONSTRAINT access_events_subject_check CHECK (subject IS NULL OR issuer IS NOT NULL),
    CONSTRAINT access_events_tenant_check CHECK (tenant IS NULL OR issuer IS NOT NULL),
    CONSTRAINT access_events_client_network_check CHECK (client_network LIKE '%/%' AND masklen(client_network::inet) >= 0),
    CONSTRAINT access_events_actor_check CHECK ((actor_issuer IS NULL) = (actor_subject IS NULL))
) PARTITION BY RANGE (id);

-- Catches rows whose month has no partition yet, so that a late maintenance run never loses one.
CREATE TABLE access_events_default PARTITION OF access_events DEFAULT;

CREATE INDEX access_events_subject_idx ON access_events (subject, id) WHERE subject IS NOT NULL;
CREATE INDEX access_events_upload_id_idx ON access_events (upload_id, id) WHERE upload_id IS NOT NULL;

-- What the audit finds downloads by, and what is still good of them. Building them keeps downloads waiting: for a large
-- table make them beforehand, as migrations/README.md says, and they are found here.
CREATE INDEX IF NOT EXISTS download_intents_subject_idx ON download_intents (subject, id);
CREATE INDEX IF NOT EXISTS download_intents_upload_id_idx ON download_intents (upload_id, id);
CREATE INDEX IF NOT EXISTS download_intents_expires_at_idx ON download_intents (expires_at);

COMMENT ON TABLE access_events IS 'What became of permissions that were handed out, where no other row says so. Only ever added to.';
COMMENT ON COLUMN access_events.id IS 'UUID version 7: the time of the event is in it, and a month is a range of ids.';
COMMENT ON COLUMN access_events.kind IS 'redeemed: a ticket was used. refused: somebody was turned away. revoked: something outstanding was stopped.';
COMMENT ON COLUMN access_events.issuer IS 'iss of whom it is about: the reader of a download, the user who was refused, the user or tenant that was revoked. Null where it is about nobody in particular.';
COMMENT ON COLUMN access_events.subject IS 'sub of the same; null where it is about a whole tenant, an upload or everything.';
COMMENT ON COLUMN access_events.tenant IS 'Tenant of the same, where known.';
COMMENT ON COLUMN access_events.upload_id IS 'The upload that it is about, if any. No foreign key: months of uploads are dropped on their own schedule.';
COMMENT ON COLUMN access_events.download_id IS 'The download that it is about, if any.';
COMMENT ON COLUMN access_events.policy IS 'Name of the policy that had decided, where one had.';
COMMENT ON COLUMN access_events.client_network IS 'Address that the request came from, as a network of one address; null where nobody asked from anywhere.';
COMMENT ON COLUMN access_events.reason IS 'Why it was refused, as the code that the client was told; of a revocation, what the operator wrote. Null of what was redeemed.';
COMMENT ON COLUMN access_events.actor_issuer IS 'iss of the token by which it was done; null where a ticket was all that was shown.';
COMMENT ON COLUMN access_events.actor_subject IS 'sub of the same.';
