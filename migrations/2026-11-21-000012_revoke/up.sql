CREATE TABLE revocations (
    target text NOT NULL,
    id uuid NOT NULL,
    issuer text,
    subject text,
    tenant text,
    upload_id uuid,
    issued_before timestamptz NOT NULL,
    reason text,
    actor_issuer text NOT NULL,
    actor_subject text NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    CONSTRAINT revocations_pkey PRIMARY KEY (target),
    CONSTRAINT revocations_id_key UNIQUE (id)
);

COMMENT ON TABLE revocations IS 'What was issued before an instant and is not honoured any more: one row for each target, whose instant only moves ahead.';
COMMENT ON COLUMN revocations.target IS 'What is stopped: "all", "upload" and its id after a space, or "user", "tenant" or "member", each followed by its names with a line feed before each: issuer and subject, issuer and tenant, or issuer, tenant and subject.';
COMMENT ON COLUMN revocations.id IS 'UUID version 7 of the last request that moved the instant.';
COMMENT ON COLUMN revocations.issuer IS 'iss of the user or tenant; of an upload, of its owner. Null where the target is all.';
COMMENT ON COLUMN revocations.subject IS 'sub of the user; null for other targets.';
COMMENT ON COLUMN revocations.tenant IS 'The tenant; of an upload, that of its owner. Null where there is none.';
COMMENT ON COLUMN revocations.upload_id IS 'The upload; null for other targets.';
COMMENT ON COLUMN revocations.issued_before IS 'What was issued before this instant is stopped.';
COMMENT ON COLUMN revocations.reason IS 'What the administrator wrote of it.';
COMMENT ON COLUMN revocations.actor_issuer IS 'iss of the administrator.';
COMMENT ON COLUMN revocations.actor_subject IS 'sub of the administrator.';
COMMENT ON COLUMN revocations.version IS 'How often the instant was moved, from 1. The sum over all rows tells every process that something has changed.';
