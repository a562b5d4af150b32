//! What one signature costs. The target is a microsecond for a URL when the day's key is cached.

#![expect(clippy::expect_used, reason = "a benchmark of requests that cannot be signed would measure nothing")]

use std::{borrow::Cow, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use divan::{AllocProfiler, Bencher, black_box, counter::ItemsCount};
use presignd::{
    model::{Metadata, ObjectKey, PartPlan},
    signing::{Addressing, Credentials, Endpoint, Method, PostForm, PresignRequest, Signer, SuccessAction},
};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const EXPIRES_IN: Duration = Duration::from_mins(5);
const KEY: &str = "uploads/2027/01/0197f3c2a9d17a3c8f0e5b6d7c8e9fa0-lorem-ipsum.pdf";

fn main() {
    divan::main();
}

fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
}

fn key() -> ObjectKey {
    ObjectKey::parse(KEY).expect("the key is valid")
}

fn signer(session_token: Option<&str>) -> Signer {
    let endpoint = Endpoint::new("https://s3.eu-central-1.amazonaws.com", "example-bucket", Addressing::VirtualHosted)
        .expect("the endpoint is valid");
    let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into();
    let credentials = Credentials::new("AKIAIOSFODNN7EXAMPLE", secret, session_token.map(Into::into), None);
    Signer::new(credentials, "eu-central-1", Arc::new(endpoint))
}

fn bench_presign(bencher: Bencher<'_, '_>, signer: &Signer, request: &PresignRequest<'_>) {
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| signer.presign(black_box(request), now(), EXPIRES_IN));
}

#[divan::bench]
fn presign_get(bencher: Bencher<'_, '_>) {
    let key = key();
    let request = PresignRequest { method: Method::Get, key: &key, query: Vec::new(), headers: Vec::new() };
    bench_presign(bencher, &signer(None), &request);
}

#[divan::bench]
fn presign_get_by_a_session(bencher: Bencher<'_, '_>) {
    let key = key();
    let request = PresignRequest { method: Method::Get, key: &key, query: Vec::new(), headers: Vec::new() };
    bench_presign(bencher, &signer(Some(&"IQoJb3JpZ2luX2VjEJr//+/=".repeat(30))), &request);
}

#[divan::bench]
fn presign_put_with_headers(bencher: Bencher<'_, '_>) {
    let key = key();
    let headers = [("content-length", "77000"), ("content-type", "application/pdf"), ("if-none-match", "*")];
    let headers = headers.map(|(name, value)| (Cow::from(name), Cow::from(value))).into();
    let request = PresignRequest { method: Method::Put, key: &key, query: Vec::new(), headers };
    bench_presign(bencher, &signer(None), &request);
}

#[divan::bench]
fn presign_post_form(bencher: Bencher<'_, '_>) {
    let (signer, key, metadata) = (signer(None), key(), Metadata::default());
    let form = PostForm {
        key: &key,
        content_length: 77_000..=77_000,
        content_type: "application/pdf",
        checksum_sha256: None,
        metadata: &metadata,
        success_action: SuccessAction::Status(201),
    };
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| signer.presign_post(black_box(&form), now(), EXPIRES_IN));
}

#[divan::bench]
fn presign_10_000_parts(bencher: Bencher<'_, '_>) {
    bench_parts(bencher, &signer(None));
}

#[divan::bench]
fn presign_10_000_parts_by_a_session(bencher: Bencher<'_, '_>) {
    bench_parts(bencher, &signer(Some(&"IQoJb3JpZ2luX2VjEJr//+/=".repeat(30))));
}

/// One answer to a client that asks for all parts of its upload at once: none is dropped before the last is signed.
fn bench_parts(bencher: Bencher<'_, '_>, signer: &Signer) {
    let (key, upload_id) = (key(), "2~iCw_lDY8VoBhoRrIJbPMrUqnE3Z-3Qh");
    let plan = PartPlan::new(10_000 * (5 << 20), PartPlan::SMALLEST_PART).expect("the file has parts");
    bencher.counter(ItemsCount::new(10_000_u32)).bench_local(|| {
        let signer = signer.part_signer(&key, upload_id, now(), EXPIRES_IN).expect("the parts can be signed");
        plan.parts().map(|part| signer.presign(black_box(part), None)).collect::<Vec<_>>()
    });
}

/// A fresh signer has to derive the key of the day first.
#[divan::bench]
fn presign_first_of_the_day(bencher: Bencher<'_, '_>) {
    let key = key();
    let request = PresignRequest { method: Method::Get, key: &key, query: Vec::new(), headers: Vec::new() };
    bencher
        .with_inputs(|| signer(None))
        .bench_local_values(|signer| signer.presign(black_box(&request), now(), EXPIRES_IN));
}
