// @generated automatically by Diesel CLI.

diesel::table! {
    /// What became of permissions that were handed out, where no other row says so. Only ever added to.
    access_events (id) {
        /// UUID version 7: the time of the event is in it, and a month is a range of ids.
        id -> Uuid,
        /// cookies_issued: cookies for the content delivery network were handed out. redeemed: a ticket was used. refused: somebody was turned away. revoked: something outstanding was stopped.
        kind -> Text,
        /// iss of whom it is about: the reader of a download, the user who was refused, the user or tenant that was revoked. Null where it is about nobody in particular.
        issuer -> Nullable<Text>,
        /// sub of the same; null where it is about a whole tenant, an upload or everything.
        subject -> Nullable<Text>,
        /// Tenant of the same, where known.
        tenant -> Nullable<Text>,
        /// The upload that it is about, if any. No foreign key: months of uploads are dropped on their own schedule.
        upload_id -> Nullable<Uuid>,
        /// The download that it is about, if any.
        download_id -> Nullable<Uuid>,
        /// Name of the policy that had decided, where one had.
        policy -> Nullable<Text>,
        /// Address that the request came from, as a network of one address; of cookies, the network that they are good for. Null where nobody asked from anywhere, and of cookies where they are good from everywhere.
        client_network -> Nullable<Text>,
        /// Why it was refused, as the code that the client was told; of a revocation, what the operator wrote. Null of what was redeemed.
        reason -> Nullable<Text>,
        /// iss of the token by which it was done; null where a ticket was all that was shown.
        actor_issuer -> Nullable<Text>,
        /// sub of the same.
        actor_subject -> Nullable<Text>,
        /// Of cookies, what they open: all keys below it.
        prefix -> Nullable<Text>,
        /// Of cookies, when they end. Nothing takes them back before.
        expires_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    /// Who was given a download of which upload, by which means, for which network, until when.
    download_intents (id) {
        /// UUID version 7: the time of issue is in it, and a month is a range of ids.
        id -> Uuid,
        /// The confirmed upload that is read. No foreign key: months of uploads are dropped on their own schedule.
        upload_id -> Uuid,
        /// iss of the token that asked; with subject it names the reader.
        issuer -> Text,
        /// sub of the token that asked.
        subject -> Text,
        /// Tenant claim of the token that asked, where its issuer has one.
        tenant -> Nullable<Text>,
        /// Name of the policy that decided.
        policy -> Text,
        /// Version of the policy file that decided.
        policy_version -> Text,
        /// Network that the download is scoped to, with its mask; null when the policy does not scope.
        client_network -> Nullable<Text>,
        /// Time of issue.
        created_at -> Timestamptz,
        /// End of the URL that was handed out, or of the time in which the download may begin.
        expires_at -> Timestamptz,
        /// How it reaches the reader, as the policies file names it: url, redirect, stream, accel, cdn.
        delivery -> Text,
    }
}

diesel::table! {
    /// Tickets for downloads: what is told of a ticket is in its row of download_intents, which is found by its id. Kept for a while after their end, to say why they are refused.
    download_tickets (token_sha256) {
        /// SHA-256 of the ticket, which itself is stored nowhere.
        token_sha256 -> Bytea,
        /// The download. No foreign key: months of downloads are dropped on their own schedule.
        download_id -> Uuid,
        /// Whether the file is shown, and not saved.
        is_inline -> Bool,
        /// Name to save it under; the original one when null.
        file_name -> Nullable<Text>,
        /// How often it can be redeemed.
        uses -> Int4,
        /// How often it has been.
        used -> Int4,
        /// Last instant at which it can be redeemed.
        expires_at -> Timestamptz,
        /// When its owner or an administrator took it back; null while nobody has.
        revoked_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    /// Confirmed uploads whose object a run has met in the bucket. Empty when no run is under way.
    drift_objects (run_id, upload_id) {
        /// The run.
        run_id -> Uuid,
        /// The upload.
        upload_id -> Uuid,
    }
}

diesel::table! {
    /// Comparisons of a bucket with the uploads: how far each has come, so that one that was interrupted can go on.
    drift_runs (id) {
        /// UUID version 7.
        id -> Uuid,
        /// The bucket.
        bucket -> Text,
        /// Last key of the listing that has been compared; null before the first page.
        listed_to -> Nullable<Text>,
        /// Whether the whole bucket has been.
        is_listed -> Bool,
        /// Last upload whose object has been looked for; null before the first.
        checked_to -> Nullable<Uuid>,
        /// What has been found so far.
        counts -> Jsonb,
        /// When it began.
        started_at -> Timestamptz,
        /// When it came this far.
        updated_at -> Timestamptz,
        /// When it was through; null before.
        finished_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    /// Idempotency-Key headers seen in the last 24 hours, and the uploads that each of them led to.
    idempotency_keys (issuer, subject, key) {
        /// iss of the token that asked: keys of different users never meet.
        issuer -> Text,
        /// sub of the token that asked.
        subject -> Text,
        /// The header as sent.
        key -> Text,
        /// SHA-256 of the request that used the key first; another request under it is refused.
        request_sha256 -> Bytea,
        /// The upload issued for it; of a batch, the first.
        upload_id -> Uuid,
        /// First use.
        created_at -> Timestamptz,
        /// Of a batch: the upload issued for each file, in their order, null where the file was refused. Null when the request was for one upload.
        upload_ids -> Nullable<Array<Nullable<Uuid>>>,
    }
}

diesel::table! {
    /// Uploads that wait for the scanner.
    inspections (upload_id) {
        /// The upload, whose state is inspecting.
        upload_id -> Uuid,
        /// Times that the scanner was asked.
        attempts -> Int4,
        /// When to ask next. Moved ahead by whoever asks, which keeps others away.
        next_attempt_at -> Timestamptz,
        /// When the upload was verified.
        created_at -> Timestamptz,
        /// Why the last attempt gave no answer.
        last_error -> Nullable<Text>,
    }
}

diesel::table! {
    /// What was issued before an instant and is not honoured any more: one row for each target, whose instant only moves ahead.
    revocations (target) {
        /// What is stopped: "all", "upload" and its id after a space, or "user", "tenant" or "member", each followed by its names with a line feed before each: issuer and subject, issuer and tenant, or issuer, tenant and subject.
        target -> Text,
        /// UUID version 7 of the last request that moved the instant.
        id -> Uuid,
        /// iss of the user or tenant; of an upload, of its owner. Null where the target is all.
        issuer -> Nullable<Text>,
        /// sub of the user; null for other targets.
        subject -> Nullable<Text>,
        /// The tenant; of an upload, that of its owner. Null where there is none.
        tenant -> Nullable<Text>,
        /// The upload; null for other targets.
        upload_id -> Nullable<Uuid>,
        /// What was issued before this instant is stopped.
        issued_before -> Timestamptz,
        /// What the administrator wrote of it.
        reason -> Nullable<Text>,
        /// iss of the administrator.
        actor_issuer -> Text,
        /// sub of the administrator.
        actor_subject -> Text,
        /// How often the instant was moved, from 1. The sum over all rows tells every process that something has changed.
        version -> Int8,
    }
}

diesel::table! {
    /// Copies of staged uploads that were begun and are not known to be the confirmed one or removed: written before the copy, so that one whose process died is found.
    upload_copies (upload_id, object_key) {
        /// The upload.
        upload_id -> Uuid,
        /// Key of the copy: each attempt has its own, so no attempt can overwrite what another has verified.
        object_key -> Text,
        /// When the copy was begun.
        created_at -> Timestamptz,
    }
}

diesel::table! {
    /// Who was allowed to upload which file, from where, until when, and what became of it.
    upload_intents (id) {
        /// UUID version 7: the time of issue is in it, and a month is a range of ids.
        id -> Uuid,
        /// iss of the token that asked; with subject it names the owner.
        issuer -> Text,
        /// sub of the token that asked; created_by in JSON.
        subject -> Text,
        /// Tenant claim of the token that asked, where its issuer has one.
        tenant -> Nullable<Text>,
        /// File name as the user wrote it.
        original_file_name -> Text,
        /// Fixed prefix of the key template at the time of issue.
        upload_to -> Text,
        /// Bucket that the object lies in.
        bucket -> Text,
        /// Key that the client writes to; its last segment is file_name in JSON.
        object_key -> Text,
        /// Promised size in bytes, bound in the signature: exact, or where file_size_is_limit the largest allowed. Of a verified object, its size.
        file_size -> Int8,
        /// Promised media type, bound in the signature.
        content_type -> Text,
        /// Promised SHA-256 digest, bound in the signature; null when none was given.
        checksum_sha256 -> Nullable<Bytea>,
        /// User metadata (x-amz-meta-*), bound in the signature.
        metadata -> Jsonb,
        /// put: a presigned PUT. post: a presigned form. multipart: presigned parts. credentials: what the client signs itself, with credentials for an area of the bucket.
        method -> Text,
        /// Name of the policy that decided.
        policy -> Text,
        /// Version of the policy file that decided last.
        policy_version -> Text,
        /// Network that the last URL is scoped to, with its mask; null when the policy does not scope.
        client_network -> Nullable<Text>,
        /// issued, inspecting, or one of the final states confirmed, rejected, aborted, expired.
        state -> Text,
        /// Time of issue.
        created_at -> Timestamptz,
        /// End of the last URL that was handed out.
        expires_at -> Timestamptz,
        /// Last instant at which a finished upload is still confirmed.
        confirm_until -> Timestamptz,
        /// Time at which a final state was reached; confirmed_at in JSON for confirmed uploads.
        settled_at -> Nullable<Timestamptz>,
        /// What led to the final state, or to the inspection before it: callback, event, sweeper or owner.
        settled_via -> Nullable<Text>,
        /// ETag of the verified object, without quotes.
        etag -> Nullable<Text>,
        /// Version of the verified object where the bucket is versioned.
        version_id -> Nullable<Text>,
        /// For rejected uploads: which promises the object broke. For confirmed ones: what a warning is about.
        mismatches -> Nullable<Jsonb>,
        /// Key of the verified object where it is not object_key: the copy of a staged upload, which no client can write to.
        stored_key -> Nullable<Text>,
        /// When the sweeper looks at this upload next: to confirm, to expire or to tidy up; null when nothing is left to do. Moved ahead by whoever looks, which keeps others away.
        look_at -> Nullable<Timestamptz>,
        /// First 64 bits of the SHA-256 of issuer, a line feed and subject: what uploads of one owner are found by.
        owner_key -> Int8,
        /// The store's id of the multipart upload; null for other methods.
        multipart_upload_id -> Nullable<Text>,
        /// Length in bytes of every part but for the last, which has the rest; null where the client cuts the file as it likes, and for other methods than multipart.
        part_size -> Nullable<Int8>,
        /// Whether every part is bound to its SHA-256, which the store has to know from the beginning; null for other methods than multipart.
        has_part_checksums -> Nullable<Bool>,
        /// Whether the client did not know the size, so that file_size is a limit; false once an object was verified.
        file_size_is_limit -> Bool,
    }
}

diesel::table! {
    /// What came of each attempt to deliver.
    webhook_attempts (event_id, endpoint, attempt) {
        /// The event.
        event_id -> Uuid,
        /// The endpoint.
        endpoint -> Text,
        /// Counted from 1.
        attempt -> Int4,
        /// When it began.
        started_at -> Timestamptz,
        /// How long it took, in milliseconds.
        duration_ms -> Int4,
        /// Status of the answer; null when there was none.
        status -> Nullable<Int4>,
        /// Why there was no answer; null when there was one.
        error -> Nullable<Text>,
    }
}

diesel::table! {
    /// Outbox: written in the transaction that changes the upload, so an event is neither lost nor invented.
    webhook_deliveries (event_id, endpoint) {
        /// UUID version 7: webhook-id, the same in every attempt and for every endpoint.
        event_id -> Uuid,
        /// Name of the endpoint in the configuration.
        endpoint -> Text,
        /// The upload that the event is about: events of one upload are delivered in order.
        upload_id -> Uuid,
        /// For example upload.confirmed.
        event_type -> Text,
        /// The body, byte for byte: what is signed must not change between attempts.
        payload -> Text,
        /// pending, delivered, or dead after the last attempt.
        state -> Text,
        /// Attempts made since it happened or was last retried by hand.
        attempts -> Int4,
        /// When to try next. Moved ahead by whoever tries, which keeps others away.
        next_attempt_at -> Nullable<Timestamptz>,
        /// When the event happened.
        created_at -> Timestamptz,
        /// When it was delivered or given up.
        settled_at -> Nullable<Timestamptz>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    access_events,
    download_intents,
    download_tickets,
    drift_objects,
    drift_runs,
    idempotency_keys,
    inspections,
    revocations,
    upload_copies,
    upload_intents,
    webhook_attempts,
    webhook_deliveries,
);
