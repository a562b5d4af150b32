// @generated automatically by Diesel CLI.

diesel::table! {
    /// Who was given a download URL of which upload, for which network, until when.
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
        /// Network that the URL is scoped to, with its mask; null when the policy does not scope.
        client_network -> Nullable<Text>,
        /// Time of issue.
        created_at -> Timestamptz,
        /// End of the URL that was handed out.
        expires_at -> Timestamptz,
    }
}

diesel::table! {
    /// Idempotency-Key headers seen in the last 24 hours, and the upload that each of them led to.
    idempotency_keys (issuer, subject, key) {
        /// iss of the token that asked: keys of different users never meet.
        issuer -> Text,
        /// sub of the token that asked.
        subject -> Text,
        /// The header as sent.
        key -> Text,
        /// SHA-256 of the request that used the key first; another request under it is refused.
        request_sha256 -> Bytea,
        /// The upload issued for it.
        upload_id -> Uuid,
        /// First use.
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
        /// Key of the object; its last segment is file_name in JSON.
        object_key -> Text,
        /// Promised size in bytes, bound in the signature.
        file_size -> Int8,
        /// Promised media type, bound in the signature.
        content_type -> Text,
        /// Promised SHA-256 digest, bound in the signature; null when none was given.
        checksum_sha256 -> Nullable<Bytea>,
        /// User metadata (x-amz-meta-*), bound in the signature.
        metadata -> Jsonb,
        /// How the bytes travel: put, post or multipart.
        method -> Text,
        /// Name of the policy that decided.
        policy -> Text,
        /// Version of the policy file that decided last.
        policy_version -> Text,
        /// Network that the last URL is scoped to, with its mask; null when the policy does not scope.
        client_network -> Nullable<Text>,
        /// issued, or one of the final states confirmed, rejected, aborted, expired.
        state -> Text,
        /// Time of issue.
        created_at -> Timestamptz,
        /// End of the last URL that was handed out.
        expires_at -> Timestamptz,
        /// Last instant at which a finished upload is still confirmed.
        confirm_until -> Timestamptz,
        /// Time at which a final state was reached; confirmed_at in JSON for confirmed uploads.
        settled_at -> Nullable<Timestamptz>,
        /// What led to the final state: callback, event, sweeper or owner.
        settled_via -> Nullable<Text>,
        /// ETag of the verified object, without quotes.
        etag -> Nullable<Text>,
        /// Version of the verified object where the bucket is versioned.
        version_id -> Nullable<Text>,
        /// For rejected uploads: which promises the object broke, with what was expected and found.
        mismatches -> Nullable<Jsonb>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(download_intents, idempotency_keys, upload_intents,);
