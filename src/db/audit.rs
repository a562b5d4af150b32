//! The audit: issued uploads, issued downloads and what became of them, as one list.
//!
//! An intent is the record of its issuing, so the hot path writes no second row. All ids are UUIDs version 7 and carry
//! the time, so merging by id is merging by time.

use diesel::{
    QueryableByName,
    pg::Pg,
    sql_types::{self, BigInt, Nullable, Text},
};
use diesel_async::RunQueryDsl as _;
use ipnet::IpNet;
use serde::Serialize;
use uuid::Uuid;

use super::{Database, DbError, uploads::owner_key};
use crate::model::{AuditKind, ClientNetwork, IntentId};

/// Rows of each table that one page looks at where a filter has no index, so that a filter that matches nothing does
/// not read years in one statement.
const LOOKED_AT: i64 = 20_000;

/// Which records are wanted. Those without an index of their own are `tenant`, `network`, and `kind` among what is not
/// issued: they are looked for among the rows that the others leave.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only what is about this user: issuer and subject.
    pub user: Option<(String, String)>,
    /// Only what is about users of this tenant: issuer and tenant.
    pub tenant: Option<(String, String)>,
    /// Only what is about this upload.
    pub upload_id: Option<IntentId>,
    /// Only what has to do with addresses in this network.
    pub network: Option<IpNet>,
    /// Only this kind.
    pub kind: Option<AuditKind>,
    /// Only ids from this one on.
    pub since: Option<IntentId>,
    /// Only ids below this one.
    pub before: Option<IntentId>,
    /// At most this many.
    pub limit: usize,
}

/// One line of the audit. When it happened is in its id.
#[derive(Debug, Clone, QueryableByName, Serialize)]
#[diesel(check_for_backend(Pg))]
pub struct AuditRecord {
    /// The intent's id, or the event's.
    #[diesel(sql_type = sql_types::Uuid)]
    pub id: IntentId,
    /// What happened.
    #[diesel(sql_type = Text)]
    pub kind: AuditKind,
    /// `iss` of whom it is about.
    #[diesel(sql_type = Nullable<Text>)]
    pub issuer: Option<String>,
    /// `sub` of the same.
    #[diesel(sql_type = Nullable<Text>)]
    pub subject: Option<String>,
    /// Tenant of the same.
    #[diesel(sql_type = Nullable<Text>)]
    pub tenant: Option<String>,
    /// The upload.
    #[diesel(sql_type = Nullable<sql_types::Uuid>)]
    pub upload_id: Option<IntentId>,
    /// The download.
    #[diesel(sql_type = Nullable<sql_types::Uuid>)]
    pub download_id: Option<IntentId>,
    /// Name of the policy that decided.
    #[diesel(sql_type = Nullable<Text>)]
    pub policy: Option<String>,
    /// Of what was issued, the network that it is scoped to; else the address that the request came from.
    #[diesel(sql_type = Nullable<Text>)]
    pub client_network: Option<ClientNetwork>,
    /// Why it was refused or revoked.
    #[diesel(sql_type = Nullable<Text>)]
    pub reason: Option<String>,
    /// `iss` of whoever did it, where that is somebody else's doing.
    #[diesel(sql_type = Nullable<Text>)]
    pub actor_issuer: Option<String>,
    /// `sub` of the same.
    #[diesel(sql_type = Nullable<Text>)]
    pub actor_subject: Option<String>,
    /// Of cookies, what they open.
    #[diesel(sql_type = Nullable<Text>)]
    pub prefix: Option<String>,
}

/// A part of the audit, newest first.
#[derive(Debug)]
pub struct AuditPage {
    /// The records: may be fewer than asked for, or none, also where there are more.
    pub records: Vec<AuditRecord>,
    /// Where the next page begins; none after the last.
    pub next: Option<IntentId>,
}

impl Database {
    /// The records that `filter` lets through, newest first. Looks at a bounded number of rows.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<AuditPage, DbError> {
        let sources: Vec<Source> =
            Source::ALL.into_iter().filter(|source| filter.kind.is_none_or(|kind| source.has(kind))).collect();
        let floor = if filter.has_unindexed() { self.audit_floor(filter, &sources).await? } else { None };
        let mut statement = Statement::default();
        let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX).saturating_add(1);
        let limit = statement.bind(Bind::Number(limit));
        let branches: Vec<String> = sources
            .iter()
            .map(|source| {
                let mut conditions = filter.indexed(*source, &mut statement);
                conditions.extend(filter.unindexed(*source, &mut statement));
                if let Some(floor) = floor {
                    conditions.push(format!("id >= {}", statement.bind(Bind::Id(floor))));
                }
                let (columns, table) = (source.columns(), source.table());
                let conditions = conditions.join(" AND ");
                format!("(SELECT {columns} FROM {table} WHERE {conditions} ORDER BY id DESC LIMIT {limit})")
            })
            .collect();
        let text = format!("SELECT * FROM ({}) AS found ORDER BY id DESC LIMIT {limit}", branches.join(" UNION ALL "));
        let mut records: Vec<AuditRecord> =
            self.query(async |connection| statement.boxed(text).load(connection).await).await?;
        // One more than asked for tells whether there are more.
        let next = if records.len() > filter.limit {
            records.truncate(filter.limit);
            records.last().map(|record| record.id)
        } else {
            floor.map(IntentId::from_uuid)
        };
        Ok(AuditPage { records, next })
    }

    /// The id down to which a page looks: with all of `sources`, no more than [`LOOKED_AT`] rows of each lie above. None
    /// where they all end before that.
    async fn audit_floor(&self, filter: &AuditFilter, sources: &[Source]) -> Result<Option<Uuid>, DbError> {
        #[derive(QueryableByName)]
        struct Floor {
            #[diesel(sql_type = sql_types::Uuid)]
            id: Uuid,
        }

        let mut statement = Statement::default();
        let branches: Vec<String> = sources
            .iter()
            .map(|source| {
                let conditions = filter.indexed(*source, &mut statement).join(" AND ");
                let skipped = statement.bind(Bind::Number(LOOKED_AT - 1));
                let table = source.table();
                format!("(SELECT id FROM {table} WHERE {conditions} ORDER BY id DESC LIMIT 1 OFFSET {skipped})")
            })
            .collect();
        let text = format!("SELECT * FROM ({}) AS found ORDER BY id DESC LIMIT 1", branches.join(" UNION ALL "));
        let floors: Vec<Floor> = self.query(async |connection| statement.boxed(text).load(connection).await).await?;
        Ok(floors.into_iter().next().map(|floor| floor.id))
    }
}

/// The tables that the audit is made of.
#[derive(Debug, Clone, Copy)]
enum Source {
    Uploads,
    Downloads,
    Events,
}

impl Source {
    const ALL: [Self; 3] = [Self::Uploads, Self::Downloads, Self::Events];

    const fn table(self) -> &'static str {
        match self {
            Self::Uploads => "upload_intents",
            Self::Downloads => "download_intents",
            Self::Events => "access_events",
        }
    }

    const fn has(self, kind: AuditKind) -> bool {
        match kind {
            AuditKind::UploadIssued => matches!(self, Self::Uploads),
            AuditKind::DownloadIssued => matches!(self, Self::Downloads),
            AuditKind::CookiesIssued | AuditKind::Redeemed | AuditKind::Refused | AuditKind::Revoked => {
                matches!(self, Self::Events)
            }
        }
    }

    const fn columns(self) -> &'static str {
        match self {
            Self::Uploads => {
                "id, 'upload_issued' AS kind, issuer, subject, tenant, id AS upload_id, NULL::uuid AS download_id, \
                 policy, client_network, NULL AS reason, NULL AS actor_issuer, NULL AS actor_subject, \
                 NULL AS prefix"
            }
            Self::Downloads => {
                "id, 'download_issued' AS kind, issuer, subject, tenant, upload_id, id AS download_id, \
                 policy, client_network, NULL AS reason, NULL AS actor_issuer, NULL AS actor_subject, \
                 NULL AS prefix"
            }
            Self::Events => {
                "id, kind, issuer, subject, tenant, upload_id, download_id, policy, client_network, reason, \
                 actor_issuer, actor_subject, prefix"
            }
        }
    }
}

impl AuditFilter {
    /// The conditions on `source` that an index answers; never none.
    fn indexed(&self, source: Source, statement: &mut Statement) -> Vec<String> {
        let before = self.before.map_or(Uuid::max(), IntentId::uuid);
        let mut conditions = vec![format!("id < {}", statement.bind(Bind::Id(before)))];
        if let Some(since) = self.since {
            conditions.push(format!("id >= {}", statement.bind(Bind::Id(since.uuid()))));
        }
        if let Some((issuer, subject)) = &self.user {
            if matches!(source, Source::Uploads) {
                let key = statement.bind(Bind::Number(owner_key(issuer, subject)));
                conditions.push(format!("owner_key = {key}"));
            }
            conditions.push(format!("subject = {}", statement.bind(Bind::Text(subject.clone()))));
            conditions.push(format!("issuer = {}", statement.bind(Bind::Text(issuer.clone()))));
        }
        if let Some(upload) = self.upload_id {
            let column = if matches!(source, Source::Uploads) { "id" } else { "upload_id" };
            conditions.push(format!("{column} = {}", statement.bind(Bind::Id(upload.uuid()))));
        }
        conditions
    }

    /// The conditions on `source` that no index answers.
    fn unindexed(&self, source: Source, statement: &mut Statement) -> Vec<String> {
        let mut conditions = Vec::new();
        if let Some((issuer, tenant)) = &self.tenant {
            conditions.push(format!("tenant = {}", statement.bind(Bind::Text(tenant.clone()))));
            conditions.push(format!("issuer = {}", statement.bind(Bind::Text(issuer.clone()))));
        }
        if let Some(network) = self.network {
            let network = statement.bind(Bind::Text(network.to_string()));
            // Either may contain the other: a URL may be scoped to the whole of a network that is asked for in part.
            conditions.push(format!("client_network::inet && {network}::inet"));
        }
        if let (Some(kind), Source::Events) = (self.kind, source) {
            conditions.push(format!("kind = {}", statement.bind(Bind::Text(kind.as_str().to_owned()))));
        }
        conditions
    }

    fn has_unindexed(&self) -> bool {
        let kind_is_a_table = matches!(self.kind, None | Some(AuditKind::UploadIssued | AuditKind::DownloadIssued));
        self.tenant.is_some() || self.network.is_some() || !kind_is_a_table
    }
}

/// A value of a statement.
enum Bind {
    Id(Uuid),
    Text(String),
    Number(i64),
}

/// The values of a statement whose text depends on the filter.
#[derive(Default)]
struct Statement(Vec<Bind>);

impl Statement {
    /// What stands for `value` in the text.
    fn bind(&mut self, value: Bind) -> String {
        self.0.push(value);
        format!("${}", self.0.len())
    }

    fn boxed(self, text: String) -> diesel::query_builder::BoxedSqlQuery<'static, Pg, diesel::query_builder::SqlQuery> {
        self.0.into_iter().fold(diesel::sql_query(text).into_boxed(), |query, bind| match bind {
            Bind::Id(id) => query.bind::<sql_types::Uuid, _>(id),
            Bind::Text(text) => query.bind::<Text, _>(text),
            Bind::Number(number) => query.bind::<BigInt, _>(number),
        })
    }
}
