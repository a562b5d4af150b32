//! The database's schema.

use std::net::TcpListener;

use chrono::TimeDelta;
use presignd::{
    clock::Clock,
    config::DatabaseConfig,
    db::{Database, SchemaState},
    model::IntentId,
};
use reqwest::Url;
use secrecy::SecretString;

use crate::support::{Backend, Suite, backend::BackendKind};

/// Everything that makes up the schema, one thing a line.
const SNAPSHOT: &str = "
    SELECT concat_ws(' ', 'column', c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod),
        CASE WHEN a.attnotnull THEN 'not null' END, pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum))
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND c.relname NOT LIKE '\\_\\_diesel%'
    UNION ALL
    SELECT concat_ws(' ', 'relation', relname, relkind, pg_get_partkeydef(oid), pg_get_expr(relpartbound, oid), obj_description(oid))
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE '\\_\\_diesel%'
    UNION ALL
    SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text NOT LIKE '\\_\\_diesel%'
    UNION ALL
    SELECT concat_ws(' ', 'index', indexdef) FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT LIKE '\\_\\_diesel%'
    UNION ALL
    SELECT concat_ws(' ', 'routine', oid::regprocedure) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT concat_ws(' ', 'trigger', tgrelid::regclass, pg_get_triggerdef(oid)) FROM pg_trigger WHERE NOT tgisinternal
    ORDER BY 1";

const UNCOMMENTED: &str = "
    SELECT c.relname || '.' || a.attname FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        AND c.relname NOT LIKE '\\_\\_diesel%' AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid) IS NULL)";

pub(crate) fn register(suite: &mut Suite<'_>) {
    // The schema has nothing to do with the store, and the embedded PostgreSQL has no connection to spare for looking.
    suite.on(&[BackendKind::SeaweedFs], "migrations_go_up_down_and_up_again", up_down_up);
    suite.on(&[BackendKind::SeaweedFs], "rows_live_through_migrations_and_their_reverts", rows_live_on);
    suite.on(&[BackendKind::SeaweedFs], "a_role_that_owns_nothing_sees_that_the_schema_fits", owned_by_another);
    suite.on(&[BackendKind::SeaweedFs], "a_host_that_is_silent_is_passed_over", silent_host);
}

fn database(url: &str, backend: &Backend) -> Database {
    let config = DatabaseConfig { url: SecretString::from(url), ..DatabaseConfig::default() };
    Database::new(&config, &backend.runtime).unwrap()
}

async fn owned_by_another(backend: Backend) {
    let place = backend.database().await;
    let owner = database(place.url(), &backend);
    owner.migrate().await.unwrap();
    let role = format!("limited_{}", IntentId::at(Clock::System.now()).hex());
    let mut url: Url = place.url().parse().unwrap();
    url.set_username(&role).unwrap();
    place.psql(&format!("CREATE ROLE {role} LOGIN PASSWORD '{}'", url.password().unwrap_or_default()));
    place.psql(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"));
    let limited = database(url.as_str(), &backend);
    assert_eq!(limited.schema_state().await.unwrap(), SchemaState::Current);
    // As the documents have it, and it is seen where anything of that is missing.
    place.psql(&format!("REVOKE UPDATE, DELETE ON access_events FROM {role}"));
    limited.may_write().await.unwrap();
    for lacking in ["INSERT ON access_events", "UPDATE ON upload_intents", "DELETE ON inspections"] {
        place.psql(&format!("REVOKE {lacking} FROM {role}"));
        let refused = limited.may_write().await.unwrap_err();
        assert!(refused.to_string().contains("permission denied"), "{lacking}: {refused}");
        place.psql(&format!("GRANT {lacking} TO {role}"));
    }
    // Nothing to do, and nothing to complain of, as long as the owner has made the months.
    let now = Clock::System.now();
    owner.ensure_partitions(now).await.unwrap();
    limited.ensure_partitions(now).await.unwrap();
    let later = limited.ensure_partitions(now + TimeDelta::days(366)).await.unwrap_err();
    assert!(later.to_string().contains("permission denied"), "{later}");
    limited.close();
    owner.close();
    place.psql(&format!("DROP OWNED BY {role}"));
    place.psql(&format!("DROP ROLE {role}"));
    place.end().await;
}

/// As a machine is that has stopped in the middle: it takes connections, and says nothing.
async fn silent_host(backend: Backend) {
    let place = backend.database().await;
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let hosts = format!("{},127.0.0.1:", silent.local_addr().unwrap());
    let url = place.url().replacen("127.0.0.1:", &hosts, 1);
    assert!(url.contains(','), "the server is on 127.0.0.1");
    let database = database(&url, &backend);
    database.ping().await.expect("the second host answers");
    database.close();
    place.end().await;
}

/// What a version before wrote is there unchanged, and what it goes on writing during a roll-out is taken.
async fn rows_live_on(backend: Backend) {
    /// Since cookies were recorded.
    const NEWEST: usize = 4;

    fn upload(id: &str, method: &str) -> String {
        format!(
            "INSERT INTO upload_intents (id, issuer, subject, original_file_name, upload_to, bucket, object_key, file_size,
                 content_type, metadata, method, policy, policy_version, created_at, expires_at, confirm_until, owner_key)
             VALUES ('{id}', 'i', 's', 'a.bin', 'uploads', 'files', 'uploads/{id}', 1, 'text/plain', '{{}}', '{method}', 'default',
                 'v', now(), now() + interval '1 minute', now() + interval '1 hour', 7)"
        )
    }

    let place = backend.database().await;
    let database = database(place.url(), &backend);
    database.migrate().await.unwrap();
    database.revert(NEWEST).await.unwrap();
    let write = |n: u32| {
        let id = format!("01a22ee6-b000-7000-8000-00000000000{n}");
        place.psql(&upload(&id, "put"));
        place.psql(&format!(
            "INSERT INTO download_intents (id, upload_id, issuer, subject, policy, policy_version, created_at, expires_at)
             VALUES ('{id}', '{id}', 'i', 's', 'default', 'v', now(), now() + interval '1 minute')"
        ));
        place.psql(&format!("INSERT INTO access_events (id, kind, reason) VALUES ('{id}', 'refused', 'revoked')"));
    };
    let rows = |table: &str| -> Vec<serde_json::Map<String, serde_json::Value>> {
        let rows = place.psql(&format!("SELECT coalesce(jsonb_agg(to_jsonb(t) ORDER BY id), '[]') FROM {table} t"));
        serde_json::from_str(&rows).expect("rows")
    };
    let tables = ["upload_intents", "download_intents", "access_events"];
    write(1);
    let before = tables.map(rows);
    database.migrate().await.unwrap();
    for (table, before) in tables.iter().zip(&before) {
        let after = rows(table);
        assert_eq!((before.len(), after.len()), (1, 1), "{table}");
        for (column, value) in &before[0] {
            assert_eq!(after[0].get(column), Some(value), "{table}.{column}");
        }
    }
    write(2);

    // What only the newer version knows goes with it, and nothing else.
    let newer = "01a22ee6-b000-7000-8000-000000000003";
    place.psql(&upload(newer, "credentials"));
    place.psql(&format!(
        "INSERT INTO idempotency_keys (issuer, subject, key, request_sha256, upload_id, created_at)
         VALUES ('i', 's', 'k', sha256('x'), '{newer}', now())"
    ));
    place.psql(&format!(
        "INSERT INTO access_events (id, kind, actor_issuer, actor_subject, prefix, expires_at)
         VALUES ('{newer}', 'cookies_issued', 'i', 's', 'video', now())"
    ));
    database.revert(NEWEST).await.unwrap();
    for table in tables {
        assert_eq!(rows(table).len(), 2, "{table}");
    }
    assert_eq!(place.psql("SELECT count(*) FROM idempotency_keys").trim(), "0");
    database.migrate().await.unwrap();
    database.close();
    place.end().await;
}

async fn up_down_up(backend: Backend) {
    let place = backend.database().await;
    let config = DatabaseConfig {
        url: SecretString::from(place.url()),
        max_connections: place.max_connections(),
        ..DatabaseConfig::default()
    };
    let database = Database::new(&config, &backend.runtime).unwrap();
    let empty = place.psql(SNAPSHOT);
    assert!(matches!(database.schema_state().await.unwrap(), SchemaState::Pending(_)));

    let applied = database.migrate().await.unwrap();
    assert_eq!(database.schema_state().await.unwrap(), SchemaState::Current);
    let up = place.psql(SNAPSHOT);
    for table in ["upload_intents", "download_intents", "idempotency_keys"] {
        assert!(up.contains(&format!("relation {table} ")), "{up}");
    }
    assert_eq!(place.psql(UNCOMMENTED), "", "every table and column says what it is for");
    assert_eq!(database.migrate().await.unwrap(), Vec::<String>::new(), "nothing is left to do");

    // With what a running service adds: its partitions go along.
    database.ensure_partitions(Clock::System.now()).await.unwrap();
    assert_ne!(place.psql(SNAPSHOT), up);
    let mut reverted = database.revert(usize::MAX).await.unwrap();
    reverted.reverse();
    assert_eq!(reverted, applied);
    assert_eq!(place.psql(SNAPSHOT), empty);

    assert_eq!(database.migrate().await.unwrap(), applied);
    assert_eq!(place.psql(SNAPSHOT), up);
    database.close();
    place.end().await;
}
