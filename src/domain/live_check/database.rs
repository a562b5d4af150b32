//! The database: whether it answers, fits and takes rows.

use super::{LiveCheck, StoreCapability, put::clocks, report::Verdict};
use crate::db::{DbError, SchemaState};

impl LiveCheck {
    pub(super) async fn try_database(&self) -> Vec<(StoreCapability, Verdict)> {
        let database = &self.service.database;
        let asked = self.now();
        let stated = match database.now().await {
            Ok(stated) => stated,
            Err(error) => return vec![(StoreCapability::Database, failed(&error))],
        };
        let clock = clocks(stated, asked, self.now(), "the database's clock");
        let mut rows =
            vec![(StoreCapability::Database, Verdict::works("it answers")), (StoreCapability::DatabaseClock, clock)];
        let schema = match database.schema_state().await {
            Ok(SchemaState::Current) => Verdict::works("it is this version's"),
            Ok(SchemaState::Pending(versions)) => {
                let found = format!("it lacks migrations: {}", versions.join(", "));
                Verdict::failed(&found, "run \"presignd migrate\", or set database.migrate_on_start")
            }
            Ok(SchemaState::Newer(versions)) => {
                let found = format!("it has migrations that this version does not know: {}", versions.join(", "));
                Verdict::failed(&found, "run a newer version")
            }
            Err(error) => failed(&error),
        };
        let is_current = matches!(schema, Verdict::Works(_));
        rows.push((StoreCapability::Schema, schema));
        if is_current {
            let writes = match database.may_write().await {
                Ok(()) => Verdict::works("every table may be written"),
                Err(error) => Verdict::failed(
                    &error,
                    "grant the role of database.url what it lacks; it must not be a read-only replica",
                ),
            };
            rows.push((StoreCapability::DatabaseWrites, writes));
        }
        rows
    }
}

fn failed(error: &DbError) -> Verdict {
    Verdict::failed(error, "start the database, or correct database.url; it has to be reached from here")
}
