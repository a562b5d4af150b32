SET LOCAL lock_timeout = '2s';

ALTER TABLE access_events
    ADD COLUMN prefix text,
    ADD COLUMN expires_at timestamptz,
    DROP CONSTRAINT access_events_kind_check,
    ADD CONSTRAINT access_events_kind_check CHECK (kind IN ('cookies_issued', 'redeemed', 'refused', 'revoked')) NOT VALID,
    ADD CONSTRAINT access_events_cookies_check CHECK (
        (kind = 'cookies_issued') = (prefix IS NOT NULL) AND (prefix IS NULL) = (expires_at IS NULL)
    ) NOT VALID;

-- Of a column that is new, so that it holds nothing; but events wait while the table is read for that.
CREATE INDEX access_events_expires_at_idx ON access_events (expires_at) WHERE expires_at IS NOT NULL;

COMMENT ON COLUMN access_events.kind IS 'cookies_issued: cookies for the content delivery network were handed out. redeemed: a ticket was used. refused: somebody was turned away. revoked: something outstanding was stopped.';
COMMENT ON COLUMN access_events.client_network IS 'Address that the request came from, as a network of one address; of cookies, the network that they are good for. Null where nobody asked from anywhere, and of cookies where they are good from everywhere.';
COMMENT ON COLUMN access_events.prefix IS 'Of cookies, what they open: all keys below it.';
COMMENT ON COLUMN access_events.expires_at IS 'Of cookies, when they end. Nothing takes them back before.';
