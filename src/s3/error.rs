//! What can go wrong with the store, in the terms that callers act on.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

/// A failure of the store or its STS. Never holds a URL: those carry signatures.
#[derive(Debug, Clone, thiserror::Error)]
pub enum S3Error {
    /// No answer, an answer too late, or one that says to come back: trying again later may work.
    #[error("{operation}: the store is unavailable: {reason}")]
    Unavailable {
        /// The operation as AWS names it.
        operation: &'static str,
        /// What happened.
        reason: String,
    },
    /// The store refused for a reason that trying again will not mend: permissions, a missing bucket, a bad role.
    #[error("{operation}: the store refused: {reason}")]
    Refused {
        /// The operation as AWS names it.
        operation: &'static str,
        /// The store's code and message.
        reason: String,
    },
    /// The object is encrypted with a key of whoever wrote it (SSE-C), so that nobody else can say anything of it.
    #[error("{operation}: the object is encrypted with a key of whoever wrote it")]
    KeyRequired {
        /// The operation as AWS names it.
        operation: &'static str,
    },
}

/// The answer, or `None` where its status is one of `absent`: what is asked about is gone, or is another. A bucket that is
/// gone is no answer about an object, nor is the 404 of something else than the store, which knows no S3 codes: everything
/// would look lost that is only out of reach.
///
/// Not for HEAD, whose answers have no body that could hold a code.
pub(super) fn unless<T, E>(
    absent: &[u16],
    operation: &'static str,
    answer: Result<T, SdkError<E>>,
) -> Result<Option<T>, S3Error>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => match (status(&error), error.as_service_error().and_then(ProvideErrorMetadata::code)) {
            // As a proxy says while there is no store behind it. The SDK makes this code of an empty body.
            (Some(404), None | Some("NotFound")) => {
                Err(S3Error::Unavailable { operation, reason: "404 by something that is not S3".to_owned() })
            }
            (Some(status), code) if absent.contains(&status) && code != Some("NoSuchBucket") => Ok(None),
            _ => Err(S3Error::from_sdk(operation, &error)),
        },
    }
}

/// The status of the answer, where there was one.
pub(super) fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// Nothing is there.
pub(super) const GONE: &[u16] = &[404];

/// Nothing is there, or something else than a condition asks for.
pub(super) const CHANGED: &[u16] = &[404, 412];

impl S3Error {
    /// For what this service ended because it stops.
    pub(crate) fn stopping(operation: &'static str) -> Self {
        Self::Unavailable { operation, reason: "the service is stopping".to_owned() }
    }

    /// Sorts an SDK error.
    pub(super) fn from_sdk<E>(operation: &'static str, error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        match error {
            SdkError::ServiceError(service) => {
                let status = service.raw().status().as_u16();
                let code = service.err().code().unwrap_or("no code");
                let reason = format!("{status} {code}: {}", service.err().message().unwrap_or("no message"));
                // 429 and SlowDown (503) ask for patience; 4xx besides, and 501, will be the same next time. What takes
                // long, such as a copy, may fail after its 200 has been sent: then the code alone tells.
                let asks_for_patience = matches!(
                    code,
                    "RequestTimeout" | "Throttling" | "InternalError" | "SlowDown" | "ServiceUnavailable"
                );
                if (status >= 500 && status != 501) || status == 429 || asks_for_patience {
                    Self::Unavailable { operation, reason }
                } else {
                    Self::Refused { operation, reason }
                }
            }
            SdkError::ConstructionFailure(_) => {
                Self::Refused { operation, reason: "the request could not be built; see the s3 settings".to_owned() }
            }
            SdkError::TimeoutError(_) => Self::Unavailable { operation, reason: "no answer in time".to_owned() },
            SdkError::DispatchFailure(failure) => {
                let kind = if failure.is_timeout() {
                    "no connection in time"
                } else if failure.is_io() {
                    "the connection failed"
                } else if failure.is_user() {
                    "the request could not be sent as built"
                } else {
                    // Missing credentials arrive here as well.
                    "the request could not be sent (no connection, or no credentials)"
                };
                Self::Unavailable { operation, reason: kind.to_owned() }
            }
            _ => Self::Unavailable { operation, reason: "the answer made no sense".to_owned() },
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::{
        config::http::HttpResponse, error::ErrorMetadata, operation::copy_object::CopyObjectError, primitives::SdkBody,
    };

    use super::*;

    fn refused(status: u16, code: &str) -> SdkError<CopyObjectError> {
        let error = CopyObjectError::generic(ErrorMetadata::builder().code(code).build());
        SdkError::service_error(error, HttpResponse::new(status.try_into().unwrap(), SdkBody::empty()))
    }

    fn sorted(status: u16, code: &str) -> S3Error {
        S3Error::from_sdk("CopyObject", &refused(status, code))
    }

    #[test]
    fn a_bucket_that_is_gone_and_a_proxy_say_nothing_of_objects() {
        let told = |status, code| unless::<(), _>(CHANGED, "CopyObject", Err(refused(status, code)));
        assert!(matches!(told(404, "NoSuchKey"), Ok(None)));
        assert!(matches!(told(412, "PreconditionFailed"), Ok(None)));
        assert!(matches!(told(404, "NoSuchBucket"), Err(S3Error::Refused { .. })));
        assert!(matches!(told(404, "NotFound"), Err(S3Error::Unavailable { .. })));
        let uncoded = CopyObjectError::generic(ErrorMetadata::builder().build());
        let uncoded = SdkError::service_error(uncoded, HttpResponse::new(404.try_into().unwrap(), SdkBody::empty()));
        assert!(matches!(unless::<(), _>(CHANGED, "CopyObject", Err(uncoded)), Err(S3Error::Unavailable { .. })));
    }

    #[test]
    fn what_may_work_later_is_told_from_what_will_not() {
        for (status, code) in [
            (500, "InternalError"),
            (503, "SlowDown"),
            (429, "TooManyRequests"),
            (400, "RequestTimeout"),
            // After the 200 of what takes long.
            (200, "InternalError"),
            (200, "SlowDown"),
            (200, "ServiceUnavailable"),
        ] {
            assert!(matches!(sorted(status, code), S3Error::Unavailable { .. }), "{status} {code}");
        }
        for (status, code) in
            [(403, "AccessDenied"), (404, "NoSuchBucket"), (501, "NotImplemented"), (200, "InvalidRequest")]
        {
            assert!(matches!(sorted(status, code), S3Error::Refused { .. }), "{status} {code}");
        }
    }
}
