//! The running service, as clients reach it.

use serde::Deserialize;

use super::{LiveCheck, put::settled, report::Verdict, visitor::send};

/// What the service says of whoever asks.
#[derive(Debug, Deserialize)]
struct Alive {
    client_address: Option<String>,
}

/// An address that no client has (TEST-NET-1 of RFC 5737).
const FORGED: &str = "192.0.2.1";

impl LiveCheck {
    pub(super) async fn try_running(&self) -> Verdict {
        match self.options.url.clone() {
            Some(url) => settled(self.see_client(url.trim_end_matches('/')).await),
            None => Verdict::untried("no URL of the running service was given: --url"),
        }
    }

    /// Asks as whom the service sees this machine, first plainly and then with headers that claim another address.
    async fn see_client(&self, url: &str) -> Result<Verdict, Verdict> {
        let plain = self.seen_at(url, &[]).await?;
        for name in ["x-forwarded-for", "forwarded"] {
            let value = if name == "forwarded" { format!("for={FORGED}") } else { FORGED.to_owned() };
            if self.seen_at(url, &[(name, &value)]).await? == FORGED {
                return Ok(Verdict::lacks(format!("the service believes a client that sends its own {name}")));
            }
        }
        Ok(match self.options.address {
            Some(address) if plain != address.to_string() => {
                Verdict::lacks(format!("the service sees {plain} where {address} asks"))
            }
            _ => Verdict::works(format!("the service sees this machine as {plain}, whatever it claims")),
        })
    }

    async fn seen_at(&self, url: &str, headers: &[(&str, &str)]) -> Result<String, Verdict> {
        let request = self.visitor.request(reqwest::Method::GET, &format!("{url}/healthz"));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = send(request).await?;
        let alive = serde_json::from_slice::<Alive>(&answer.body).ok().filter(|_| answer.is_success());
        let alive = alive.ok_or_else(|| Verdict::lacks(format!("{url}/healthz was answered {}", answer.told())))?;
        alive.client_address.ok_or_else(|| Verdict::lacks("the service cannot tell the client's address"))
    }
}
