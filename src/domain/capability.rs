//! Capabilities: a path that stands for a user, for clients that can send no `Authorization` header.

use std::{net::IpAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{Caller, DomainError, Service, TokenKeys};
use crate::{
    db::revocations::RevocationTarget,
    model::{ClientNetwork, IntentId, Principal, Scope},
};

/// Gives out and verifies capabilities.
#[derive(Debug, Clone, Default)]
pub struct Capabilities {
    keys: TokenKeys,
    longest: Duration,
}

/// What a capability is good for: to upload as this user under this policy, from this network, until this instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// The user, who may upload and nothing else, and whose end is that of the capability.
    pub principal: Principal,
    /// The policy.
    pub policy: String,
    /// The only network that it is good from; none when the policy does not scope.
    pub network: Option<ClientNetwork>,
    /// The only upload that it is good for; none: all of the user's under the policy, and further ones.
    pub upload: Option<IntentId>,
    /// When it was given out.
    pub issued_at: DateTime<Utc>,
}

/// A capability on its way to its holder.
#[derive(Debug)]
pub struct GrantedCapability {
    /// What it is good for.
    pub capability: Capability,
    /// What stands for it in a path.
    pub token: SecretString,
}

/// A capability as its token carries it.
#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload: Option<String>,
    /// In milliseconds, because what is revoked is told from what is not by the instant. One without it is as old as can be.
    #[serde(default)]
    iat_ms: i64,
    exp: i64,
}

impl Capabilities {
    /// Capabilities under `keys`, none of which lives longer than `longest`.
    pub fn new(keys: TokenKeys, longest: Duration) -> Self {
        Self { keys, longest }
    }

    fn token(&self, capability: &Capability) -> SecretString {
        let Capability { principal, policy, network, upload, issued_at } = capability;
        let claims = Claims {
            iss: principal.issuer.clone(),
            sub: principal.subject.clone(),
            tenant: principal.tenant.clone(),
            policy: policy.clone(),
            network: network.map(|network| network.to_string()),
            upload: upload.map(|upload| upload.to_string()),
            iat_ms: issued_at.timestamp_millis(),
            exp: principal.authenticated_until.timestamp(),
        };
        let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims).unwrap_or_default());
        self.keys.sign(&claims, &message(&claims))
    }

    /// What `token` is good for at `now`, from anywhere.
    fn verify(&self, token: &str, now: DateTime<Utc>) -> Option<Capability> {
        let claims = TokenKeys::claims(token)?;
        if !self.keys.verify(token, &message(claims)) {
            return None;
        }
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        let authenticated_until = DateTime::from_timestamp(claims.exp, 0).filter(|end| now < *end)?;
        let issued_at = DateTime::from_timestamp_millis(claims.iat_ms)?;
        let principal = Principal {
            issuer: claims.iss,
            subject: claims.sub,
            tenant: claims.tenant,
            can_upload: true,
            can_download: false,
            can_administer: false,
            authenticated_until,
        };
        let network = claims.network.map(|network| network.parse()).transpose().ok()?;
        let upload = claims.upload.map(|upload| upload.parse()).transpose().ok()?;
        Some(Capability { principal, policy: claims.policy, network, upload, issued_at })
    }
}

/// What is signed. The first line keeps these apart from anything else ever signed with the same key.
fn message(claims: &str) -> String {
    format!("presignd capability v1\n{claims}")
}

impl Service {
    /// A capability for the caller, where they are now, to send the caller's `upload` or any: for `expires_in`, or as long
    /// as the settings allow and the caller is authenticated.
    ///
    /// # Errors
    /// When the caller may not upload, or there is no such policy, or none any more.
    pub fn grant_capability(
        &self,
        caller: Caller<'_>,
        policy: String,
        upload: Option<IntentId>,
        expires_in: Option<Duration>,
    ) -> Result<GrantedCapability, DomainError> {
        caller.require(Scope::Upload)?;
        let issued_at = self.clock.now();
        let now = issued_at.trunc_subsecs(0);
        let Some(rules) = self.policies.current().policy(&policy, now) else {
            // An upload has a policy that existed; a request names whatever it likes.
            return Err(match upload {
                Some(_) => DomainError::PolicyWithdrawn(policy),
                None => DomainError::UnknownPolicy(policy),
            });
        };
        let longest = self.capabilities.longest;
        let life = TimeDelta::from_std(expires_in.map_or(longest, |asked| asked.min(longest))).unwrap_or_default();
        let authenticated_until = (now + life).min(caller.principal.authenticated_until);
        let principal =
            Principal { can_download: false, can_administer: false, authenticated_until, ..caller.principal.clone() };
        let network = ClientNetwork::of(caller.address, rules.ip_scope);
        let capability = Capability { principal, policy, network, upload, issued_at };
        Ok(GrantedCapability { token: self.capabilities.token(&capability), capability })
    }

    /// What the capability `token` is good for, now and from `address`, in a request about `upload` or about none.
    ///
    /// # Errors
    /// [`DomainError::CapabilityInvalid`] when it is forged, outdated, revoked, or good for another upload only, and
    /// [`DomainError::CapabilityElsewhere`] when it was given to another network.
    pub async fn capability(
        &self,
        token: &str,
        address: IpAddr,
        upload: Option<IntentId>,
    ) -> Result<Capability, DomainError> {
        let capability = self.capabilities.verify(token, self.clock.now()).ok_or(DomainError::CapabilityInvalid)?;
        if capability.upload.is_some() && capability.upload != upload {
            return Err(DomainError::CapabilityInvalid);
        }
        match capability.network {
            Some(network) if !network.contains(address) => {
                self.note_refusal(&capability.principal, address, None, "capability_elsewhere");
                Err(DomainError::CapabilityElsewhere)
            }
            _ if self.is_capability_revoked(&capability).await? => {
                self.note_refusal(&capability.principal, address, None, "revoked");
                Err(DomainError::CapabilityInvalid)
            }
            _ => Ok(capability),
        }
    }

    async fn is_capability_revoked(&self, capability: &Capability) -> Result<bool, DomainError> {
        let Principal { issuer, subject, tenant, .. } = &capability.principal;
        let targets = RevocationTarget::all_of(issuer, subject, tenant.as_deref(), capability.upload);
        Ok(self.database.is_revoked(&targets, capability.issued_at).await?)
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::{domain::CallbackTokens, model::IntentId};

    fn keys() -> TokenKeys {
        [("k1", SecretString::from("one")), ("k2", SecretString::from("two"))].into_iter().collect()
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn capability() -> Capability {
        let principal = Principal {
            issuer: "https://issuer".to_owned(),
            subject: "alice \u{e9}".to_owned(),
            tenant: Some("acme".to_owned()),
            can_upload: true,
            can_download: false,
            can_administer: false,
            authenticated_until: at(2000),
        };
        let network = Some("203.0.113.7/32".parse().unwrap());
        let upload = Some(IntentId::at(at(1000)));
        Capability { principal, policy: "default".to_owned(), network, upload, issued_at: at(1000) }
    }

    #[test]
    fn what_was_granted_is_read_back_until_its_end() {
        let capabilities = Capabilities::new(keys(), Duration::from_hours(1));
        let capability = capability();
        let token = capabilities.token(&capability);
        let token = token.expose_secret();
        assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{token}");
        assert_eq!(capabilities.verify(token, at(1999)), Some(capability));
        assert_eq!(capabilities.verify(token, at(2000)), None);
    }

    #[test]
    fn no_part_can_be_changed() {
        let capabilities = Capabilities::new(keys(), Duration::from_hours(1));
        let token = capabilities.token(&capability()).expose_secret().to_owned();
        let claims = TokenKeys::claims(&token).unwrap();
        let json = String::from_utf8(URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        let longer = URL_SAFE_NO_PAD.encode(json.replace("2000", "9000"));
        for forged in [
            token.replace(claims, &longer),
            token.replace("k1", "k2"),
            token.replace("k1", "k3"),
            format!("{token}A"),
            token.rsplit_once('.').unwrap().0.to_owned(),
            String::new(),
            "..".to_owned(),
        ] {
            assert_eq!(capabilities.verify(&forged, at(1000)), None, "{forged}");
        }
    }

    #[test]
    fn callback_tokens_and_capabilities_are_not_good_for_each_other() {
        let (capabilities, callbacks) = (Capabilities::new(keys(), Duration::ZERO), CallbackTokens::new(keys()));
        let upload = IntentId::at(at(1000));
        let token = capabilities.token(&capability());
        assert!(callbacks.verify(token.expose_secret(), upload, at(1000)).is_err());
        assert_eq!(capabilities.verify(callbacks.issue(upload, at(2000)).expose_secret(), at(1000)), None);
    }
}
