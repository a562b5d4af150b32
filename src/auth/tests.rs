//! Tokens as an issuer would sign them, against an [`Authenticator`] as the service runs it.

mod jwks_server;
mod key_sets;
mod properties;
mod signers;
mod tokens;

use chrono::{DateTime, Utc};
use jsonwebtoken::Header;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use self::signers::Signer;
use super::*;

const ISSUER: &str = "https://id.example.com/";
const SECRET: &str = "a secret of more than sixty-four bytes, because that is what HS512 asks for";

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

/// Claims that are accepted for five minutes from [`now`].
fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": "presignd", "sub": "alice", "exp": now().timestamp() + 300 })
}

/// [`claims`] with some added or replaced, or removed where the value is `null`.
fn claims_with(changes: Value) -> Value {
    let (Value::Object(mut claims), Value::Object(changes)) = (claims(), changes) else {
        panic!("claims are an object")
    };
    for (name, value) in changes {
        if value.is_null() {
            claims.remove(&name);
        } else {
            claims.insert(name, value);
        }
    }
    Value::Object(claims)
}

fn bearer(signer: &Signer, header: &Header, claims: &Value) -> String {
    format!("Bearer {}", jsonwebtoken::encode(header, claims, &signer.signing_key).unwrap())
}

/// `[auth]` with one issuer: `settings` are TOML.
fn config(settings: &str) -> AuthConfig {
    config_with("", settings)
}

fn config_with(auth: &str, issuer: &str) -> AuthConfig {
    let text = format!("{auth}\n[[issuers]]\nissuer = \"{ISSUER}\"\naudience = [\"presignd\", \"files\"]\n{issuer}");
    toml::from_str(&text).unwrap()
}

fn shared_secret_config() -> AuthConfig {
    config(&format!("algorithms = [\"HS256\"]\nsecret = \"{SECRET}\""))
}

async fn authenticator(config: &AuthConfig, clock: &Clock) -> Authenticator {
    Authenticator::from_config(config, clock.clone(), Handle::current()).await.unwrap()
}
