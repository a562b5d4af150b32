//! The scanner: any HTTP service that takes a file, or the URL of one, and says whether it is clean. Bridges to ClamAV
//! are such services.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use reqwest::{
    Body, RequestBuilder, StatusCode, Url,
    header::{AUTHORIZATION, HeaderValue},
    multipart::{Form, Part},
};
use secrecy::ExposeSecret as _;
use serde::Serialize;

use crate::{
    config::{
        InspectionConfig, Problem,
        inspection::{InspectionMode, VerdictConfig},
    },
    outgoing,
};

/// Verdicts are short.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// A file that is to be scanned. Scanners are told nothing that could not stand in their logs.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ScannedFile<'a> {
    /// Its name, in plain ASCII.
    pub file_name: &'a str,
    /// Its media type, as declared.
    pub file_type: &'a str,
    /// Its size in bytes.
    pub file_size: u64,
}

/// What a scanner says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Nothing was found.
    Clean,
    /// Something was found.
    Infected,
}

/// Why there is no finding. Never holds a URL.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// No answer, or half of one.
    #[error("the scanner gave no answer: {0}")]
    NoAnswer(String),
    /// An answer that means neither clean nor infected.
    #[error("the scanner answered {0}, which is no verdict")]
    Status(StatusCode),
    /// A body without a verdict.
    #[error("the scanner's answer holds no verdict")]
    NoVerdict,
    /// It called a file clean that it has not seen all of.
    #[error("the scanner gave its verdict before it had the whole file")]
    Hasty,
    /// The file's media type cannot be sent.
    #[error("the file cannot be described to the scanner")]
    Undescribable,
}

/// The configured scanner. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Scanner {
    client: reqwest::Client,
    url: Url,
    authorization: Option<HeaderValue>,
    config: Arc<InspectionConfig>,
}

impl Scanner {
    /// The scanner of `config`. Connects to nothing yet.
    ///
    /// # Errors
    /// When the secret cannot be read or sent, or HTTPS cannot be set up.
    pub fn new(config: &InspectionConfig) -> Result<Self, Problem> {
        let problem = |key: &str, rule: String| Problem::new(format!("inspection.{key}"), rule);
        let authorization = config.load_authorization();
        let authorization = authorization.map_err(|error| problem("authorization_file", error.to_string()))?;
        let header = |value: secrecy::SecretString| {
            let mut value = HeaderValue::from_str(value.expose_secret())
                .map_err(|_| problem("authorization", "must be the value of a header".to_owned()))?;
            value.set_sensitive(true);
            Ok(value)
        };
        let client = outgoing::client(config.timeout)
            .build()
            .map_err(|error| problem("url", format!("no client can be made: {error}")))?;
        Ok(Self {
            client,
            url: config.url.parse().map_err(|_| problem("url", "must be a URL".to_owned()))?,
            authorization: authorization.map(header).transpose()?,
            config: Arc::new(config.clone()),
        })
    }

    /// How the scanner gets its files.
    pub fn mode(&self) -> InspectionMode {
        self.config.mode
    }

    /// Longest time for one file.
    pub fn timeout(&self) -> Duration {
        self.config.timeout
    }

    /// Sends `file` with these bytes in a form, in constant memory and with its length, and waits for the finding.
    ///
    /// # Errors
    /// When there is none.
    pub async fn scan<E>(
        &self,
        file: ScannedFile<'_>,
        bytes: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> Result<Finding, ScanError>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let sent = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&sent);
        let watched = bytes.inspect_ok(move |piece| {
            counter.fetch_add(u64::try_from(piece.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        });
        // A type that clients may declare and a form cannot have, such as one with half a parameter, is no reason to leave
        // the file unscanned for ever.
        let can_be_sent = Part::text("").mime_str(file.file_type).is_ok();
        let part = Part::stream_with_length(Body::wrap_stream(watched), file.file_size)
            .file_name(file.file_name.to_owned())
            .mime_str(if can_be_sent { file.file_type } else { "application/octet-stream" })
            .map_err(|_| ScanError::Undescribable)?;
        let form = Form::new().part(self.config.field.clone(), part);
        let finding = self.ask(self.client.post(self.url.clone()).multipart(form)).await?;
        // What a scanner has not seen it cannot have found clean, whatever it says.
        if finding == Finding::Clean && sent.load(Ordering::Relaxed) != file.file_size {
            return Err(ScanError::Hasty);
        }
        Ok(finding)
    }

    /// Sends the presigned `url` of `file`, which the scanner fetches, and waits for the finding.
    ///
    /// # Errors
    /// When there is none.
    pub async fn scan_url(&self, file: ScannedFile<'_>, url: &str) -> Result<Finding, ScanError> {
        #[derive(Serialize)]
        struct Request<'a> {
            url: &'a str,
            #[serde(flatten)]
            file: ScannedFile<'a>,
        }
        self.ask(self.client.post(self.url.clone()).json(&Request { url, file })).await
    }

    async fn ask(&self, request: RequestBuilder) -> Result<Finding, ScanError> {
        let request = match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization.clone()),
            None => request,
        };
        let response = request.send().await.map_err(|error| ScanError::NoAnswer(outgoing::describe(&error)))?;
        let status = response.status();
        if self.config.infected_statuses.contains(&status.as_u16()) {
            return Ok(Finding::Infected);
        }
        if !self.config.clean_statuses.contains(&status.as_u16()) {
            return Err(ScanError::Status(status));
        }
        let Some(verdict) = &self.config.verdict else { return Ok(Finding::Clean) };
        let body = outgoing::body(response, MAX_BODY_BYTES).await;
        let body =
            body.map_err(|error| ScanError::NoAnswer(outgoing::describe(&error)))?.ok_or(ScanError::NoVerdict)?;
        finding(verdict, &body).ok_or(ScanError::NoVerdict)
    }
}

fn finding(verdict: &VerdictConfig, body: &[u8]) -> Option<Finding> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let said = body.pointer(&verdict.pointer)?;
    if *said == verdict.clean {
        Some(Finding::Clean)
    } else if *said == verdict.infected {
        Some(Finding::Infected)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_two_values_are_verdicts() {
        let at = |pointer: &str, clean, infected| VerdictConfig { pointer: pointer.to_owned(), clean, infected };
        let nested = at("/data/result/0/is_infected", json!(false), json!(true));
        let whole = at("", json!(true), json!(false));
        for (verdict, body, expected) in [
            (&nested, r#"{"data":{"result":[{"is_infected":false}]}}"#, Some(Finding::Clean)),
            (&nested, r#"{"data":{"result":[{"is_infected":true}]}}"#, Some(Finding::Infected)),
            (&nested, r#"{"data":{"result":[{"is_infected":null}]}}"#, None),
            (&nested, r#"{"data":{"result":[{"is_infected":"false"}]}}"#, None),
            (&nested, r#"{"data":{"result":[]}}"#, None),
            (&nested, r#"{"success":false}"#, None),
            (&nested, "", None),
            (&nested, "<html>", None),
            (&whole, "true", Some(Finding::Clean)),
            (&whole, "false", Some(Finding::Infected)),
            (&whole, "Everything ok : true", None),
        ] {
            assert_eq!(finding(verdict, body.as_bytes()), expected, "{body}");
        }
    }
}
