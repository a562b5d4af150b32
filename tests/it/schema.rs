//! The database's schema.

use presignd::{
    config::DatabaseConfig,
    db::{Database, SchemaState},
};
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
    database.ensure_partitions(presignd::clock::Clock::System.now()).await.unwrap();
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
