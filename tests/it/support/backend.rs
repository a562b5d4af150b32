//! What a service under test runs on: a database of its own, and a bucket of its own in a store.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use aws_sdk_s3::{
    config::{BehaviorVersion, Credentials, Region},
    types::{Delete, ObjectIdentifier},
};
use presignd::{
    clock::Clock,
    dev::{EmbeddedPostgres, EmbeddedStore, StoreOptions},
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::services::{Services, StoreService};

/// Which servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BackendKind {
    /// PostgreSQL and the store inside this process.
    Embedded,
    /// An installed PostgreSQL, and Ceph RGW.
    Rgw,
    /// An installed PostgreSQL, and SeaweedFS.
    SeaweedFs,
}

impl BackendKind {
    pub(crate) const ALL: [Self; 3] = [Self::Embedded, Self::Rgw, Self::SeaweedFs];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Rgw => "rgw",
            Self::SeaweedFs => "seaweedfs",
        }
    }
}

/// Where a test gets its database and its bucket from.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) kind: BackendKind,
    pub(crate) runtime: Handle,
    real: Option<RealServers>,
}

#[derive(Clone)]
struct RealServers {
    store: StoreService,
    services: Arc<Mutex<Services>>,
    postgres_url: String,
}

/// A database that goes away with this value.
pub(crate) enum TestDatabase {
    Embedded(EmbeddedPostgres),
    Real { url: String, name: String, services: Arc<Mutex<Services>> },
}

/// A bucket, and how to reach it.
pub(crate) struct TestBucket {
    pub(crate) service: StoreService,
    pub(crate) bucket: String,
    /// What the store's administrator sees: to look at objects behind the service's back.
    pub(crate) s3: aws_sdk_s3::Client,
    embedded: Option<EmbeddedStore>,
}

impl Backend {
    pub(crate) fn embedded(runtime: &Handle) -> Self {
        Self { kind: BackendKind::Embedded, runtime: runtime.clone(), real: None }
    }

    pub(crate) fn real(
        kind: BackendKind,
        store: StoreService,
        services: Arc<Mutex<Services>>,
        postgres_url: String,
        runtime: &Handle,
    ) -> Self {
        Self { kind, runtime: runtime.clone(), real: Some(RealServers { store, services, postgres_url }) }
    }

    pub(crate) async fn database(&self) -> TestDatabase {
        match &self.real {
            None => TestDatabase::Embedded(EmbeddedPostgres::start(None).await.expect("embedded PostgreSQL starts")),
            Some(real) => {
                let name = format!("test_{}", Uuid::now_v7().simple());
                let services = real.services.lock().unwrap();
                services.postgres.as_ref().expect("it runs").create_database(&name).expect("a database is made");
                TestDatabase::Real {
                    url: real.postgres_url.replace("{}", &name),
                    name,
                    services: Arc::clone(&real.services),
                }
            }
        }
    }

    pub(crate) async fn bucket(&self, folder: &Path) -> TestBucket {
        let bucket = format!("test-{}", Uuid::now_v7().simple());
        let (service, embedded) = if let Some(real) = &self.real {
            (real.store.clone(), None)
        } else {
            let secret = SecretString::from("embedded-secret-embedded-secret");
            let options = StoreOptions {
                listen: "127.0.0.1:0".parse().unwrap(),
                data_dir: Some(folder.join("store")),
                access_key_id: "EMBEDDEDKEY000000001".to_owned(),
                secret_access_key: secret.clone(),
                region: "us-east-1".to_owned(),
                buckets: Vec::new(),
                cors_allowed_origins: vec!["*".to_owned()],
                role_arn: "arn:aws:iam::000000000000:role/tests".to_owned(),
            };
            let role_arn = options.role_arn.clone();
            let store = EmbeddedStore::start(options, Clock::System, self.runtime.clone()).await;
            let store = store.expect("the embedded store starts");
            let service = StoreService {
                name: "embedded",
                endpoint: store.endpoint(),
                region: "us-east-1".to_owned(),
                access_key_id: "EMBEDDEDKEY000000001".to_owned(),
                secret_access_key: secret,
                role_arn,
            };
            (service, Some(store))
        };
        let s3 = administrator(&service);
        s3.create_bucket().bucket(&bucket).send().await.expect("a bucket is made");
        TestBucket { service, bucket, s3, embedded }
    }
}

fn administrator(service: &StoreService) -> aws_sdk_s3::Client {
    let secret = service.secret_access_key.expose_secret();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(service.region.clone()))
        .endpoint_url(&service.endpoint)
        .force_path_style(true)
        .credentials_provider(Credentials::new(&service.access_key_id, secret, None, None, "tests"))
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

impl TestDatabase {
    pub(crate) fn url(&self) -> &str {
        match self {
            Self::Embedded(postgres) => postgres.database_url(),
            Self::Real { url, .. } => url,
        }
    }

    /// PostgreSQL inside the process serves one connection at a time.
    pub(crate) fn max_connections(&self) -> usize {
        match self {
            Self::Embedded(_) => 1,
            Self::Real { .. } => 4,
        }
    }

    /// The rows of a statement, as `psql` prints them without headings. Only of an installed PostgreSQL: the embedded
    /// one serves a single connection, which is the service's.
    pub(crate) fn psql(&self, statement: &str) -> String {
        match self {
            Self::Embedded(_) => panic!("the embedded PostgreSQL has no connection to spare"),
            Self::Real { name, services, .. } => {
                let services = services.lock().unwrap();
                services.postgres.as_ref().expect("it runs").psql(name, statement).expect("a valid statement")
            }
        }
    }

    pub(crate) async fn end(self) {
        match self {
            Self::Embedded(postgres) => postgres.shutdown().await,
            Self::Real { name, services, .. } => {
                let services = services.lock().unwrap();
                let statement = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                services.postgres.as_ref().expect("it runs").psql("postgres", &statement).expect("it is dropped");
            }
        }
    }
}

impl TestBucket {
    pub(crate) async fn end(self) {
        if let Some(store) = self.embedded {
            store.shutdown().await;
        } else {
            self.empty().await;
        }
    }

    /// Gives its room back, because all tests of a run share a store, and a full one would let the last of them hang.
    pub(crate) async fn empty(&self) {
        let mut uploads = self.s3.list_multipart_uploads().bucket(&self.bucket);
        loop {
            let listed = uploads.clone().send().await.expect("uploads are listed");
            for upload in listed.uploads() {
                let abort = self.s3.abort_multipart_upload().bucket(&self.bucket);
                let abort = abort.set_key(upload.key.clone()).set_upload_id(upload.upload_id.clone());
                // Already gone where the service, which is stopping, has aborted it as well.
                drop(abort.send().await);
            }
            if listed.is_truncated != Some(true) {
                break;
            }
            uploads = uploads.set_key_marker(listed.next_key_marker).set_upload_id_marker(listed.next_upload_id_marker);
        }
        let mut pages = self.s3.list_objects_v2().bucket(&self.bucket).into_paginator().send();
        while let Some(page) = pages.try_next().await.expect("objects are listed") {
            let objects = page
                .contents()
                .iter()
                .filter_map(|object| ObjectIdentifier::builder().set_key(object.key.clone()).build().ok());
            let Ok(delete) = Delete::builder().set_objects(Some(objects.collect())).quiet(true).build() else {
                continue;
            };
            if !page.contents().is_empty() {
                let delete = self.s3.delete_objects().bucket(&self.bucket).delete(delete);
                delete.send().await.expect("objects are deleted");
            }
        }
    }
}
