//! The presigned GET of the S3 documentation, stage by stage, and the credentials of all examples there.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{Addressing, Credentials, Endpoint, Signer};

pub(super) const REGION: &str = "us-east-1";
pub(super) const QUERY: &str = "X-Amz-Algorithm=AWS4-HMAC-SHA256\
    &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
    &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host";
pub(super) const CANONICAL_REQUEST: &str = "GET\n\
    /test.txt\n\
    X-Amz-Algorithm=AWS4-HMAC-SHA256\
    &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
    &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\n\
    host:examplebucket.s3.amazonaws.com\n\
    \n\
    host\n\
    UNSIGNED-PAYLOAD";
pub(super) const STRING_TO_SIGN: &str = "AWS4-HMAC-SHA256\n\
    20130524T000000Z\n\
    20130524/us-east-1/s3/aws4_request\n\
    3bfa292879f6447bbcda7001decf97f4a54dc650c8942174ae0a9121cf58ad04";
pub(super) const SIGNATURE: &str = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";

pub(super) fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_369_353_600, 0).unwrap()
}

pub(super) fn credentials() -> Credentials {
    Credentials::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(), None, None)
}

pub(super) fn endpoint() -> Arc<Endpoint> {
    Arc::new(Endpoint::new("https://s3.amazonaws.com", "examplebucket", Addressing::VirtualHosted).unwrap())
}

pub(super) fn signer() -> Signer {
    Signer::new(credentials(), REGION, endpoint())
}
