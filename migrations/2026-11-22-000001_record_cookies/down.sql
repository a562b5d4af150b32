SET LOCAL lock_timeout = '2s';

DROP INDEX access_events_expires_at_idx;
-- What the older version has no name for.
DELETE FROM access_events WHERE kind = 'cookies_issued';
ALTER TABLE access_events
    DROP CONSTRAINT access_events_cookies_check,
    DROP CONSTRAINT access_events_kind_check,
    ADD CONSTRAINT access_events_kind_check CHECK (kind IN ('redeemed', 'refused', 'revoked')),
    DROP COLUMN expires_at,
    DROP COLUMN prefix;

COMMENT ON COLUMN access_events.kind IS 'redeemed: a ticket was used. refused: somebody was turned away. revoked: something outstanding was stopped.';
COMMENT ON COLUMN access_events.client_network IS 'Address that the request came from, as a network of one address; null where nobody asked from anywhere.';
