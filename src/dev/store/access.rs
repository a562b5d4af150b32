//! Whether a request whose signature is right may do what it asks for.

use std::{net::IpAddr, sync::Arc};

use hyper::http::Extensions;
use s3s::{
    S3Error, S3Request, S3Result,
    access::{S3Access, S3AccessContext},
    dto::{CopyObjectInput, CopySource, DeleteObjectsInput, PostObjectInput},
    path::S3Path,
    s3_error,
};

use super::{
    post_form::PostForm,
    session::{Credentials, Identity},
    signed_request::{HoistedHeaders, SignedRequest},
};
use crate::clock::Clock;

/// The other end of the TCP connection, IPv4-mapped addresses as IPv4. Forwarding headers never change it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// Who sent a request, and from where.
#[derive(Debug, Clone)]
struct Caller {
    identity: Identity,
    peer: IpAddr,
}

impl Caller {
    fn require(&self, action: &str, resource: &str) -> S3Result<()> {
        let allowed = match &self.identity {
            Identity::Root => true,
            Identity::Session(session) => {
                session.policy.as_ref().is_none_or(|policy| policy.allows(action, resource, self.peer))
            }
        };
        if allowed { Ok(()) } else { Err(denied()) }
    }
}

fn denied() -> S3Error {
    s3_error!(AccessDenied, "Access Denied")
}

fn caller(extensions: &Extensions) -> S3Result<&Caller> {
    extensions.get().ok_or_else(denied)
}

fn bucket_arn(bucket: &str) -> String {
    format!("arn:aws:s3:::{bucket}")
}

fn object_arn(bucket: &str, key: &str) -> String {
    format!("arn:aws:s3:::{bucket}/{key}")
}

/// The access check of the store.
#[derive(Debug)]
pub(super) struct AccessCheck {
    pub(super) credentials: Arc<Credentials>,
    pub(super) region: String,
}

#[async_trait::async_trait]
impl S3Access for AccessCheck {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let access_key = cx.credentials().ok_or_else(denied)?.access_key.clone();
        let operation = cx.s3_op().name().to_owned();
        let Peer(peer) = *cx.extensions_mut().get::<Peer>().ok_or_else(denied)?;
        // The layer that verified the signature judges its date by the machine's clock.
        let now = Clock::System.now();
        let identity = if operation == "PostObject" {
            let form = cx.extensions_mut().get::<PostForm>().cloned().unwrap_or_default();
            let signed = SignedRequest::of_form(&form, now)?;
            signed.require_scope(&self.region, "s3")?;
            self.credentials.identify(&access_key, signed.token.as_deref())?
        } else {
            let hoisted = cx.extensions_mut().get::<HoistedHeaders>().cloned().unwrap_or_default();
            let signed = SignedRequest::of_request(cx.uri(), cx.headers(), &hoisted, now)?;
            signed.require_scope(&self.region, "s3")?;
            self.credentials.identify(&access_key, signed.token.as_deref())?
        };
        let caller = Caller { identity, peer };
        match Requirement::of(&operation, cx.s3_path()) {
            Requirement::Action(action, resource) => caller.require(action, &resource)?,
            Requirement::InInput => {}
            Requirement::RootOnly if matches!(caller.identity, Identity::Root) => {}
            Requirement::RootOnly => return Err(denied()),
        }
        cx.extensions_mut().insert(caller);
        Ok(())
    }

    async fn post_object(&self, req: &mut S3Request<PostObjectInput>) -> S3Result<()> {
        caller(&req.extensions)?.require("s3:PutObject", &object_arn(&req.input.bucket, &req.input.key))
    }

    async fn copy_object(&self, req: &mut S3Request<CopyObjectInput>) -> S3Result<()> {
        // The destination was judged by the path already.
        match &req.input.copy_source {
            CopySource::Bucket { bucket, key, .. } => {
                caller(&req.extensions)?.require("s3:GetObject", &object_arn(bucket, key))
            }
            _ => Err(denied()),
        }
    }

    async fn delete_objects(&self, req: &mut S3Request<DeleteObjectsInput>) -> S3Result<()> {
        let caller = caller(&req.extensions)?;
        req.input
            .delete
            .objects
            .iter()
            .try_for_each(|object| caller.require("s3:DeleteObject", &object_arn(&req.input.bucket, &object.key)))
    }
}

/// What an operation needs of a session policy.
enum Requirement {
    /// This IAM action on this resource.
    Action(&'static str, String),
    /// What the path does not tell: the check is made once the input has been read.
    InInput,
    /// Not an operation that sessions are given here.
    RootOnly,
}

impl Requirement {
    /// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html>
    fn of(operation: &str, path: &S3Path) -> Self {
        let action = match operation {
            "PutObject" | "CopyObject" | "CreateMultipartUpload" | "UploadPart" | "CompleteMultipartUpload" => {
                "s3:PutObject"
            }
            "GetObject" | "HeadObject" => "s3:GetObject",
            "DeleteObject" => "s3:DeleteObject",
            "AbortMultipartUpload" => "s3:AbortMultipartUpload",
            "ListParts" => "s3:ListMultipartUploadParts",
            "HeadBucket" | "ListObjectsV2" => "s3:ListBucket",
            "ListMultipartUploads" => "s3:ListBucketMultipartUploads",
            "GetBucketLocation" => "s3:GetBucketLocation",
            "ListBuckets" => "s3:ListAllMyBuckets",
            "PostObject" | "DeleteObjects" => return Self::InInput,
            _ => return Self::RootOnly,
        };
        let resource = match path {
            S3Path::Root => "*".to_owned(),
            S3Path::Bucket { bucket } => bucket_arn(bucket),
            S3Path::Object { bucket, key } => object_arn(bucket, key),
        };
        Self::Action(action, resource)
    }
}
