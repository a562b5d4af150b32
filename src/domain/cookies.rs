//! Cookies that open a prefix of the content delivery network.
//!
//! A prefix belongs to no upload, so no row of one says who may read it, and whether what lies there was confirmed is not
//! asked again for any file. That is why these are an administrator's to hand out, and why they are recorded as what they
//! are.

use std::{net::IpAddr, time::Duration};

use super::{Caller, DomainError, Service};
use crate::{
    db::AccessEvent,
    model::{AuditKind, ClientNetwork, Delivery, IntentId, IpScope, ObjectKey, Scope},
    signing::cloudfront::{CloudFrontError, CookieScope, SignedCookies},
};

/// Which cookies an administrator wants for a visitor.
#[derive(Debug, Clone)]
pub struct CookieRequest {
    /// All keys below it are opened.
    pub prefix: ObjectKey,
    /// Name of the policy that says how long, and from where.
    pub policy: String,
    /// Where the visitor is. May be left out where the policy scopes nobody.
    pub client_address: Option<IpAddr>,
    /// The longest life; none for what the policy allows.
    pub expires_in: Option<Duration>,
}

/// Cookies that were handed out.
#[derive(Debug)]
pub struct IssuedCookies {
    /// Names them in the audit.
    pub id: IntentId,
    /// From where they are good; none for anywhere.
    pub network: Option<ClientNetwork>,
    /// The cookies.
    pub cookies: SignedCookies,
}

impl Service {
    /// Cookies for a visitor, by which a browser reads everything below a prefix until they end. Nothing takes them back.
    ///
    /// # Errors
    /// When the caller is no administrator, or one of a single tenant only; when the policy does not deliver through the
    /// content delivery network, or scopes visitors and the request does not say where this one is; when the prefix is
    /// out of the distribution's reach; when they cannot be recorded.
    pub async fn issue_cookies(
        &self,
        caller: Caller<'_>,
        request: &CookieRequest,
        scope: CookieScope<'_>,
    ) -> Result<IssuedCookies, DomainError> {
        caller.require(Scope::Admin)?;
        if caller.principal.administers_only().is_some() {
            return Err(DomainError::TenantBound);
        }
        let now = self.clock.now();
        let document = self.policies.current();
        let rules =
            document.policy(&request.policy, now).ok_or_else(|| DomainError::UnknownPolicy(request.policy.clone()))?;
        rules.decide_delivery(Some(Delivery::Cdn))?;
        let network = match (rules.download_ip_scope(), request.client_address) {
            (IpScope::Off, address) => address.map(ClientNetwork::of_one),
            (scope, Some(address)) => ClientNetwork::of(address, scope),
            (_, None) => {
                let rule = "must be given: the policy holds downloads to the client's network";
                return Err(DomainError::broken_rule("client_address", rule, serde_json::Value::Null));
            }
        };
        let life = rules.decide_download(request.expires_in);
        let cookies = self.cdn_for(network)?.sign_cookies(&request.prefix, network, now, life, scope);
        let cookies = cookies.map_err(|error| match error {
            CloudFrontError::OutOfReach => {
                DomainError::broken_rule("prefix", "must lie below cdn.origin_path", request.prefix.as_str())
            }
            error => error.into(),
        })?;
        let principal = caller.principal;
        let event = AccessEvent {
            policy: Some(request.policy.clone()),
            client_network: network,
            actor: Some((principal.issuer.clone(), principal.subject.clone())),
            prefix: Some(request.prefix.clone()),
            expires_at: Some(cookies.expires_at),
            ..AccessEvent::new(AuditKind::CookiesIssued, now)
        };
        // Before anybody has them.
        self.database.record_event(&event).await?;
        Ok(IssuedCookies { id: event.id, network, cookies })
    }
}
