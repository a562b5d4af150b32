//! The bytes of an object, piece by piece.

use aws_sdk_s3::{
    error::SdkError,
    operation::get_object::{GetObjectError, GetObjectOutput},
    primitives::ByteStream,
};
use bytes::Bytes;
use futures_util::{Stream, stream};

use super::{
    S3Error,
    error::{CHANGED, unless},
};

/// The bytes of an object on their way from the store.
#[derive(Debug)]
pub struct ObjectBody(ByteStream);

impl ObjectBody {
    pub(super) const OPERATION: &str = "GetObject";

    /// What `answer` brings; `None` when the object is gone or another, which a condition on it is answered with.
    pub(super) fn of(answer: Result<GetObjectOutput, SdkError<GetObjectError>>) -> Result<Option<Self>, S3Error> {
        Ok(unless(CHANGED, Self::OPERATION, answer)?.map(|object| Self(object.body)))
    }

    /// The next piece; `None` after the last one.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, S3Error>> {
        let broken = |_| S3Error::Unavailable { operation: Self::OPERATION, reason: "the object broke off".to_owned() };
        Some(self.0.next().await?.map_err(broken))
    }

    /// The pieces.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, S3Error>> + Send + 'static {
        stream::unfold(self, async |mut body| Some((body.next().await?, body)))
    }
}
