//! From claims to a [`Principal`].

use std::{borrow::Cow, collections::HashMap, fmt, time::Duration};

use chrono::{DateTime, Utc};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::AuthError;
use crate::{
    config::auth::ScopesConfig,
    model::{Principal, is_name},
};

/// The claims of a token, each still in its JSON text. Reading them says nothing about who wrote them: until the
/// signature is verified, only the issuer may be asked for, to find the key.
pub(super) struct Claims<'a>(HashMap<Cow<'a, str>, &'a RawValue>);

impl<'a> Claims<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self, AuthError> {
        serde_json::from_slice(payload).map_err(|_| AuthError::Malformed)
    }

    /// `iss`.
    pub(super) fn issuer(&self) -> Result<Cow<'a, str>, AuthError> {
        self.text("iss", "iss")?.ok_or(AuthError::MissingClaim("iss"))
    }

    /// A claim of any type, `null` being the same as none. `label` stands for it in an error.
    fn get<T: Deserialize<'a>>(&self, name: &str, label: &'static str) -> Result<Option<T>, AuthError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(raw) => serde_json::from_str(raw.get()).map_err(|_| AuthError::InvalidClaim(label)),
        }
    }

    fn text(&self, name: &str, label: &'static str) -> Result<Option<Cow<'a, str>>, AuthError> {
        Ok(self.get::<Text<'a>>(name, label)?.map(|text| text.0))
    }

    /// A claim that is a string or an array of strings.
    fn texts(&self, name: &str, label: &'static str) -> Result<Option<Vec<Cow<'a, str>>>, AuthError> {
        if self.0.get(name).is_some_and(|raw| raw.get().starts_with('[')) {
            let texts = self.get::<Vec<Text<'a>>>(name, label)?;
            Ok(texts.map(|texts| texts.into_iter().map(|text| text.0).collect()))
        } else {
            Ok(self.text(name, label)?.map(|text| vec![text]))
        }
    }
}

/// What is asked of the claims of one issuer's tokens.
#[derive(Debug)]
pub(super) struct ClaimRules {
    issuer: String,
    audience: Vec<String>,
    tenant_claim: Option<String>,
    scopes: ScopesConfig,
    leeway_millis: i64,
}

impl ClaimRules {
    pub(super) fn new(
        issuer: String,
        audience: Vec<String>,
        tenant_claim: Option<String>,
        scopes: ScopesConfig,
        leeway: Duration,
    ) -> Self {
        // A leeway too long to count cannot come from a valid configuration; none is the safe reading.
        let leeway_millis = i64::try_from(leeway.as_millis()).unwrap_or(0);
        Self { issuer, audience, tenant_claim, scopes, leeway_millis }
    }

    /// `iss` of the tokens that these rules are for.
    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Validates the claims of a token whose signature is verified (RFC 7519 §4.1), all but its times.
    pub(super) fn principal(&self, claims: &Claims<'_>, times: Times) -> Result<Principal, AuthError> {
        if claims.issuer()? != self.issuer {
            return Err(AuthError::UnknownIssuer);
        }
        let audience = claims.texts("aud", "aud")?.ok_or(AuthError::MissingClaim("aud"))?;
        if !audience.iter().any(|name| self.audience.iter().any(|own| own == name)) {
            return Err(AuthError::WrongAudience);
        }
        let subject = claims.text("sub", "sub")?.ok_or(AuthError::MissingClaim("sub"))?;
        let tenant = match &self.tenant_claim {
            None => None,
            Some(name) => {
                let tenant = claims.text(name, "tenant")?.ok_or(AuthError::TenantMissing)?;
                Some(usable_name(tenant, "tenant")?)
            }
        };
        let granted = Scopes(claims.texts(&self.scopes.claim, "scope")?.unwrap_or_default());
        let allows = |needed: &Option<String>| needed.as_deref().map(|scope| granted.contains(scope));
        Ok(Principal {
            issuer: self.issuer.clone(),
            subject: usable_name(subject, "sub")?,
            tenant,
            can_upload: allows(&self.scopes.upload).unwrap_or(true),
            can_download: allows(&self.scopes.download).unwrap_or(true),
            can_administer: allows(&self.scopes.admin).unwrap_or(false),
            authenticated_until: times.until(),
        })
    }

    /// When a token is good, with the configured leeway.
    pub(super) fn times(&self, claims: &Claims<'_>) -> Result<Times, AuthError> {
        let expires = claims.get::<NumericDate>("exp", "exp")?.ok_or(AuthError::MissingClaim("exp"))?;
        let not_before = claims.get::<NumericDate>("nbf", "nbf")?;
        Ok(Times {
            until: expires.millis.saturating_add(self.leeway_millis),
            from: not_before.map_or(i64::MIN, |not_before| not_before.millis.saturating_sub(self.leeway_millis)),
        })
    }
}

/// The times between which a token is good, in milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    from: i64,
    until: i64,
}

impl Times {
    /// The first instant at which the token is no longer good, leeway included.
    fn until(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.until).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    pub(super) fn check(self, now: DateTime<Utc>) -> Result<(), AuthError> {
        let now = now.timestamp_millis();
        // "on or after which the JWT MUST NOT be accepted" (RFC 7519 §4.1.4).
        if now >= self.until {
            return Err(AuthError::Expired);
        }
        if now < self.from { Err(AuthError::NotYetValid) } else { Ok(()) }
    }
}

/// The scopes that a token carries: each string of the claim may hold several, separated by spaces.
struct Scopes<'a>(Vec<Cow<'a, str>>);

impl Scopes<'_> {
    fn contains(&self, scope: &str) -> bool {
        self.0.iter().any(|text| text.split(' ').any(|granted| granted == scope))
    }
}

fn usable_name(name: Cow<'_, str>, label: &'static str) -> Result<String, AuthError> {
    if is_name(&name) { Ok(name.into_owned()) } else { Err(AuthError::InvalidClaim(label)) }
}

/// A string that is borrowed from the payload unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Claims<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ClaimsVisitor;

        impl<'de> Visitor<'de> for ClaimsVisitor {
            type Value = Claims<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of claims")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut claims = HashMap::with_capacity(16);
                while let Some((name, value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    // Two readers that pick different ones of two equal names could be played against each other
                    // (RFC 7519 §4).
                    if claims.insert(name.0, value).is_some() {
                        return Err(de::Error::custom("a claim is there twice"));
                    }
                }
                Ok(Claims(claims))
            }
        }

        deserializer.deserialize_map(ClaimsVisitor)
    }
}

/// Seconds since 1970, fractions allowed (RFC 7519 §2), held in milliseconds.
#[derive(Clone, Copy)]
struct NumericDate {
    millis: i64,
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumericDateVisitor;

        impl Visitor<'_> for NumericDateVisitor {
            type Value = NumericDate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of seconds since 1970")
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<NumericDate, E> {
                let millis = seconds.checked_mul(1000).ok_or_else(|| E::custom("out of range"))?;
                Ok(NumericDate { millis })
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<NumericDate, E> {
                self.visit_i64(i64::try_from(seconds).map_err(E::custom)?)
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<NumericDate, E> {
                // Half a millisecond more rounds to the nearest: most decimal fractions have no exact f64.
                let duration = Duration::try_from_secs_f64(seconds).map_err(E::custom)?;
                let duration = duration.saturating_add(Duration::from_micros(500));
                Ok(NumericDate { millis: i64::try_from(duration.as_millis()).map_err(E::custom)? })
            }
        }

        deserializer.deserialize_any(NumericDateVisitor)
    }
}
