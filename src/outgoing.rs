//! Requests of this service's own, to anybody but the store: to identity providers, Amazon SNS, scanners, receivers.

use std::{error::Error as _, time::Duration};

use reqwest::{Client, ClientBuilder, Response, redirect::Policy};

/// A client that says who it is, waits for an answer until `time_limit`, and follows nobody: where a redirect leads has
/// been neither configured nor checked.
pub fn client(time_limit: Duration) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("presignd/", env!("CARGO_PKG_VERSION")))
        .timeout(time_limit)
        .redirect(Policy::none())
}

/// The body of `response`; `None` as soon as it turns out to have more than `max_bytes`, because who answers decides how
/// much memory it would take.
///
/// # Errors
/// When the answer breaks off.
pub async fn body(mut response: Response, max_bytes: usize) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await? {
        if body.len().saturating_add(piece.len()) > max_bytes {
            return Ok(None);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Some(body))
}

/// What went wrong and its causes, of which reqwest tells the useful ones last; without the URL, which may hold what is
/// nobody's business.
pub fn describe(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() {
        "no answer in time".to_owned()
    } else if error.is_connect() {
        "cannot connect".to_owned()
    } else {
        "the request failed".to_owned()
    };
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_is_told_with_its_cause_and_without_the_url() {
        // Nobody but root could listen there, and nobody does.
        let closed = "127.0.0.1:1";
        let client = client(Duration::from_secs(5)).no_proxy().build().unwrap();
        let error = client.get(format!("http://{closed}/?token=hidden")).send().await.unwrap_err();
        let text = describe(&error);
        assert!(text.starts_with("cannot connect: ") && text.contains("refused"), "{text}");
        assert!(!text.contains("hidden") && !text.contains(closed), "{text}");
    }
}
