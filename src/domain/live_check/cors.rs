//! The bucket's CORS, asked as a browser asks.

use super::{
    BODY, LiveCheck,
    put::{digest_of_body, settled},
    report::Verdict,
    visitor::{Answer, send},
};
use crate::{
    domain::{BucketCors, CorsRule},
    s3::Access,
};

/// The origin of a page where all are allowed.
const ANY_ORIGIN: &str = "https://presignd-check.example";

impl LiveCheck {
    pub(super) async fn try_cors(&self) -> Verdict {
        if self.options.origins.is_empty() {
            return Verdict::untried(
                "no page uses the bucket: server.cors_allowed_origins is empty, and web.enabled is false",
            );
        }
        settled(self.ask_for_all().await)
    }

    /// Asks for everything that `presignd cors print` would allow.
    async fn ask_for_all(&self) -> Result<Verdict, Verdict> {
        let mut asked = 0;
        for rule in &BucketCors::needed(&self.document, &self.options.origins).rules {
            for origin in &rule.allowed_origins {
                let origin = if origin == "*" { ANY_ORIGIN } else { origin };
                for method in &rule.allowed_methods {
                    asked += 1;
                    if let Some(missing) = self.preflight(origin, method, rule).await? {
                        return Ok(Verdict::lacks(missing));
                    }
                }
                if let Some(missing) = self.exposed(origin, rule).await? {
                    return Ok(Verdict::lacks(missing));
                }
            }
        }
        Ok(Verdict::works(format!("{asked} preflights are allowed, and the headers of answers exposed")))
    }

    async fn preflight(&self, origin: &str, method: &str, rule: &CorsRule) -> Result<Option<String>, Verdict> {
        let headers: Vec<String> = match method {
            "PUT" => rule
                .allowed_headers
                .iter()
                .filter(|name| **name != "range")
                .map(|name| name.replace('*', "a"))
                .collect(),
            "GET" => rule.allowed_headers.iter().filter(|name| **name == "range").map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        // Ceph RGW verifies the signature of a preflight, as one of the request that is asked for.
        let url = match method {
            "PUT" => {
                let signer = self.signer(None, Access::Upload).await?;
                self.signed_put(&signer, &self.fresh_key("cors")?, digest_of_body())?.into_url()
            }
            "GET" => {
                let signer = self.signer(None, Access::Download).await?;
                self.signed_get(&signer, &self.fresh_key("cors")?)?.into_url()
            }
            _ => self.signer(None, Access::Upload).await?.endpoint().form_url(),
        };
        let mut request = self.visitor.request(reqwest::Method::OPTIONS, &url).header("origin", origin);
        request = request.header("access-control-request-method", method);
        if !headers.is_empty() {
            request = request.header("access-control-request-headers", headers.join(","));
        }
        let answer = send(request).await?;
        let refused = |what: &str| Some(format!("{method} from {origin}: {what} ({})", answer.told()));
        if !answer.is_success() || !allows_origin(&answer, origin) {
            return Ok(refused("the origin or the method is not allowed"));
        }
        // Methods that every page may use need not be named.
        if method == "PUT" && !lists(&answer, "access-control-allow-methods", method) {
            return Ok(refused("the method is not allowed"));
        }
        let missing = headers.iter().find(|name| !lists(&answer, "access-control-allow-headers", name));
        Ok(missing.and_then(|name| refused(&format!("the header {name} is not allowed"))))
    }

    async fn exposed(&self, origin: &str, rule: &CorsRule) -> Result<Option<String>, Verdict> {
        // Of something that is there: Ceph RGW says nothing of CORS where there is nothing.
        let key = self.fresh_key("cors-exposed")?;
        let upload = self.signer(None, Access::Upload).await?;
        let written = self.visitor.put(&self.signed_put(&upload, &key, None)?, BODY, &[]).await?;
        if !written.is_success() && written.status != 412 {
            return Ok(Some(format!("a PUT was answered {}", written.told())));
        }
        let signer = self.signer(None, Access::Download).await?;
        let readable = self.signed_get(&signer, &key)?;
        let answer = self.visitor.get(&readable, &[("origin", origin)]).await?;
        if !allows_origin(&answer, origin) {
            return Ok(Some(format!("a page of {origin} may not read answers")));
        }
        let missing = rule.expose_headers.iter().find(|name| !lists(&answer, "access-control-expose-headers", name));
        Ok(missing.map(|name| format!("a page of {origin} may not read the header {name}")))
    }
}

fn allows_origin(answer: &Answer, origin: &str) -> bool {
    let allowed = answer.header("access-control-allow-origin");
    allowed == "*" || allowed.eq_ignore_ascii_case(origin)
}

fn lists(answer: &Answer, header: &str, wanted: &str) -> bool {
    answer
        .headers
        .get_all(header)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .any(|line| line.split(',').any(|item| item.trim() == "*" || item.trim().eq_ignore_ascii_case(wanted)))
}
