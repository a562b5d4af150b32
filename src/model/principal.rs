//! Who is asking.

use std::fmt;

use chrono::{DateTime, Utc};

/// What the name of an issuer, a subject or a tenant must be.
pub const NAME_RULE: &str = "must be 1 to 255 bytes without control characters";

/// Whether `text` may be the name of an issuer, a subject or a tenant: these go into rows, log lines and key templates, so
/// that they have a length which a column holds, and nothing that moves a cursor.
pub fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// What a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Issue, renew, confirm and abort uploads.
    Upload,
    /// Issue downloads.
    Download,
    /// Operate the service.
    Admin,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Upload => "upload",
            Self::Download => "download",
            Self::Admin => "admin",
        })
    }
}

/// An authenticated user. Issuer and subject identify it together: two issuers may both know an `alice`. What it uploads
/// as a member of one tenant is not its own in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// `iss` of the token.
    pub issuer: String,
    /// `sub` of the token.
    pub subject: String,
    /// The tenant claim, where the issuer has one configured.
    pub tenant: Option<String>,
    /// Whether the token carries the scope configured for uploads (or none is configured).
    pub can_upload: bool,
    /// Whether the token carries the scope configured for downloads (or none is configured).
    pub can_download: bool,
    /// Whether the token carries the scope configured for administration. Never true unless one is configured.
    pub can_administer: bool,
    /// When the token ends: nothing that is given to its holder in exchange may stand for the user any longer.
    pub authenticated_until: DateTime<Utc>,
}

impl Principal {
    /// The tenant that an administrator is bound to: issuer and tenant. One whose token names a tenant has no business
    /// with others.
    pub fn administers_only(&self) -> Option<(String, String)> {
        self.tenant.as_ref().map(|tenant| (self.issuer.clone(), tenant.clone()))
    }

    /// Whether this principal is an administrator of what a user of `issuer` and `tenant` was given.
    pub fn administers(&self, issuer: &str, tenant: Option<&str>) -> bool {
        let own = self.tenant.as_deref();
        self.can_administer && (own.is_none() || (self.issuer == issuer && own == tenant))
    }

    /// Whether this is the user of `issuer` and `subject`, in its `tenant`. Where one of both has none, the issuer did not
    /// tell tenants apart at that time, and the user was the same in all.
    pub fn is(&self, issuer: &str, subject: &str, tenant: Option<&str>) -> bool {
        let tenants = self.tenant.as_deref().zip(tenant);
        self.issuer == issuer && self.subject == subject && tenants.is_none_or(|(mine, other)| mine == other)
    }

    /// Whether this principal may do what `scope` covers.
    pub const fn has(&self, scope: Scope) -> bool {
        match scope {
            Scope::Upload => self.can_upload,
            Scope::Download => self.can_download,
            Scope::Admin => self.can_administer,
        }
    }
}
