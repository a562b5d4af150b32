SET LOCAL lock_timeout = '2s';

COMMENT ON TABLE download_intents IS 'Who was given a download URL of which upload, for which network, until when.';
COMMENT ON COLUMN download_intents.client_network IS 'Network that the URL is scoped to, with its mask; null when the policy does not scope.';
COMMENT ON COLUMN download_intents.expires_at IS 'End of the URL that was handed out.';

ALTER TABLE download_intents DROP COLUMN delivery;
