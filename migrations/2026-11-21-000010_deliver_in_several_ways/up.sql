SET LOCAL lock_timeout = '2s';

-- The default is what a process of the version before does, and writes by not naming the column.
ALTER TABLE download_intents ADD COLUMN delivery text NOT NULL DEFAULT 'url';
ALTER TABLE download_intents ADD CONSTRAINT download_intents_delivery_check
    CHECK (delivery IN ('url', 'redirect', 'stream', 'accel', 'cdn')) NOT VALID;

COMMENT ON TABLE download_intents IS 'Who was given a download of which upload, by which means, for which network, until when.';
COMMENT ON COLUMN download_intents.delivery IS 'How it reaches the reader, as the policies file names it: url, redirect, stream, accel, cdn.';
COMMENT ON COLUMN download_intents.client_network IS 'Network that the download is scoped to, with its mask; null when the policy does not scope.';
COMMENT ON COLUMN download_intents.expires_at IS 'End of the URL that was handed out, or of the time in which the download may begin.';
