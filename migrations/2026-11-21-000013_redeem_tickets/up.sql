CREATE TABLE download_tickets (
    token_sha256 bytea NOT NULL,
    download_id uuid NOT NULL,
    is_inline boolean NOT NULL,
    file_name text,
    uses integer NOT NULL,
    used integer NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    CONSTRAINT download_tickets_pkey PRIMARY KEY (token_sha256),
    CONSTRAINT download_tickets_download_id_key UNIQUE (download_id),
    CONSTRAINT download_tickets_token_sha256_check CHECK (octet_length(token_sha256) = 32),
    CONSTRAINT download_tickets_uses_check CHECK (uses BETWEEN 1 AND 1000),
    CONSTRAINT download_tickets_used_check CHECK (used BETWEEN 0 AND uses)
);

CREATE INDEX download_tickets_expires_at_idx ON download_tickets (expires_at);

COMMENT ON TABLE download_tickets IS 'Tickets for downloads: what is told of a ticket is in its row of download_intents, which is found by its id. Kept for a while after their end, to say why they are refused.';
COMMENT ON COLUMN download_tickets.token_sha256 IS 'SHA-256 of the ticket, which itself is stored nowhere.';
COMMENT ON COLUMN download_tickets.download_id IS 'The download. No foreign key: months of downloads are dropped on their own schedule.';
COMMENT ON COLUMN download_tickets.is_inline IS 'Whether the file is shown, and not saved.';
COMMENT ON COLUMN download_tickets.file_name IS 'Name to save it under; the original one when null.';
COMMENT ON COLUMN download_tickets.uses IS 'How often it can be redeemed.';
COMMENT ON COLUMN download_tickets.used IS 'How often it has been.';
COMMENT ON COLUMN download_tickets.expires_at IS 'Last instant at which it can be redeemed.';
COMMENT ON COLUMN download_tickets.revoked_at IS 'When its owner or an administrator took it back; null while nobody has.';
