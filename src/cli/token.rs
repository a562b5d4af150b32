//! `presignd token`

use std::time::Duration;

use clap::Args;
use jsonwebtoken::Algorithm;
use secrecy::ExposeSecret as _;

use super::{ConfigArgs, Failure, print};
use crate::{
    auth::{DevelopmentToken, mint_development_token, shared_secret},
    clock::Clock,
    config::AuthConfig,
};

/// What the token says.
#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The user (sub).
    #[arg(long, default_value = "alice")]
    subject: String,
    /// The tenant, for an issuer with a tenant claim.
    #[arg(long)]
    tenant: Option<String>,
    /// A scope; may be given several times.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// How long it is good for.
    #[arg(long, default_value = "1h", value_parser = crate::config::duration::parse)]
    lifetime: Duration,
    /// The issuer, where several have a shared secret.
    #[arg(long)]
    issuer: Option<String>,
}

pub(super) async fn run(args: &TokenArgs) -> Result<(), Failure> {
    let config = args.config.load()?;
    print(mint(&config.auth, args).await?);
    Ok(())
}

async fn mint(config: &AuthConfig, args: &TokenArgs) -> Result<String, Failure> {
    for issuer in &config.issuers {
        if args.issuer.as_ref().is_some_and(|wanted| *wanted != issuer.issuer) {
            continue;
        }
        let Some(secret) = shared_secret(issuer).await? else { continue };
        let tenant = match (issuer.tenant_claim.as_deref(), args.tenant.as_deref()) {
            (Some(claim), Some(tenant)) => Some((claim, tenant)),
            (None, None) => None,
            (Some(_), None) => {
                let refused = format!("issuer {:?} tells tenants apart: name one with --tenant", issuer.issuer);
                return Err(Failure(refused));
            }
            (None, Some(_)) => {
                let refused = format!("issuer {:?} has no tenant_claim: leave out --tenant", issuer.issuer);
                return Err(Failure(refused));
            }
        };
        let scopes: Vec<&str> = args.scopes.iter().map(String::as_str).collect();
        let token = DevelopmentToken {
            issuer: &issuer.issuer,
            audience: issuer.audience.first().map_or("", String::as_str),
            subject: &args.subject,
            tenant,
            scope_claim: &config.scopes.claim,
            scopes: &scopes,
            lifetime: args.lifetime,
            algorithm: issuer.algorithms.first().copied().unwrap_or(Algorithm::HS256),
        };
        let token = mint_development_token(&secret, &token, Clock::System.now())?;
        return Ok(token.expose_secret().to_owned());
    }
    Err(Failure(match &args.issuer {
        Some(issuer) => format!("no issuer {issuer:?} with a shared secret is in the configuration"),
        None => "no issuer in the configuration has a shared secret to mint a token with".to_owned(),
    }))
}
