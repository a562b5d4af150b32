//! Why a request or a set-up was refused.

use std::path::PathBuf;

use crate::config::Problem;

/// Why a request is not authenticated. No variant holds any part of the token: what a stranger wrote there must not
/// reach a log or a response, and what a user wrote there is a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is no `Authorization` header.
    #[error("the request has no Authorization header")]
    Missing,
    /// The `Authorization` header uses another scheme than `Bearer` (RFC 6750 §2.1).
    #[error("the Authorization header does not use the Bearer scheme")]
    NotBearer,
    /// The token is longer than [`MAX_TOKEN_BYTES`](super::MAX_TOKEN_BYTES).
    #[error("the token is longer than {} bytes", super::MAX_TOKEN_BYTES)]
    TooLarge,
    /// The token is not three parts of base64url, or header and claims are not JSON objects with unique names.
    #[error("the token is not a signed JSON Web Token")]
    Malformed,
    /// `typ` says that the token is something other than a JWT or an access token (RFC 8725 §3.11).
    #[error("the token's typ is neither JWT nor at+jwt")]
    TypeNotAllowed,
    /// The token has a `crit` header: it must not be accepted by those who do not know the extension (RFC 7515 §4.1.11).
    #[error("the token demands an extension by its crit header, and none is supported")]
    CriticalHeader,
    /// No issuer of that name is configured.
    #[error("the token's issuer is not known")]
    UnknownIssuer,
    /// `alg` is not one of those pinned for the issuer, or the key is not made for it.
    #[error("the token's algorithm is not allowed")]
    AlgorithmNotAllowed,
    /// The issuer does not publish the key that `kid` names, or `kid` is needed and not there.
    #[error("the token's key is not known")]
    UnknownKey,
    /// The issuer's keys cannot be fetched at present, so nothing can be said about the token.
    #[error("the keys of the token's issuer cannot be fetched at present")]
    KeysUnavailable,
    /// The signature does not match.
    #[error("the token's signature does not match")]
    SignatureInvalid,
    /// `exp` is past.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is yet to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `aud` names none of the configured audiences.
    #[error("the token is meant for another audience")]
    WrongAudience,
    /// A required claim is not there.
    #[error("the token has no {0} claim")]
    MissingClaim(&'static str),
    /// A claim is of the wrong JSON type or breaks a limit.
    #[error("the token's {0} claim is not usable")]
    InvalidClaim(&'static str),
    /// The issuer's tenants are told apart by a claim that the token does not have.
    #[error("the token does not name a tenant")]
    TenantMissing,
}

impl AuthError {
    /// A stable name in `snake_case`, for problem details, logs and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::NotBearer => "not_bearer",
            Self::TooLarge => "token_too_large",
            Self::Malformed => "token_malformed",
            Self::TypeNotAllowed => "token_type_not_allowed",
            Self::CriticalHeader => "critical_header_unsupported",
            Self::UnknownIssuer => "unknown_issuer",
            Self::AlgorithmNotAllowed => "algorithm_not_allowed",
            Self::UnknownKey => "unknown_key",
            Self::KeysUnavailable => "keys_unavailable",
            Self::SignatureInvalid => "signature_invalid",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::WrongAudience => "wrong_audience",
            Self::MissingClaim(_) => "claim_missing",
            Self::InvalidClaim(_) => "claim_invalid",
            Self::TenantMissing => "tenant_missing",
        }
    }
}

/// Why authentication cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum AuthSetupError {
    /// The configuration breaks a rule.
    #[error("{0}")]
    Config(Problem),
    /// A key file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The secret in a file is shorter than the hash that it keys (RFC 7518 §3.2).
    #[error("{} must hold a secret of at least {minimum} bytes for these algorithms", path.display())]
    SecretTooShort {
        /// The file.
        path: PathBuf,
        /// What is needed, in bytes.
        minimum: usize,
    },
    /// A private key where a public one belongs: this service verifies and must not be able to sign.
    #[error("{} holds a private key; put the issuer's public key there", path.display())]
    PrivateKey {
        /// The file.
        path: PathBuf,
    },
    /// A file does not hold a key that the pinned algorithms can use.
    #[error(
        "{} must hold a PEM public key (BEGIN PUBLIC KEY) that fits every one of the issuer's algorithms; RSA keys have 2048 to 8192 bits",
        path.display()
    )]
    UnusableKey {
        /// The file.
        path: PathBuf,
    },
    /// The HTTP client that fetches key sets cannot be built.
    #[error("cannot set up the HTTP client that fetches key sets")]
    HttpClient(#[source] reqwest::Error),
}

impl AuthSetupError {
    /// The same, with the setting of the issuer at `index` that is to blame where it is a file.
    pub(super) fn of_issuer(self, index: usize) -> Self {
        let file = match &self {
            Self::SecretTooShort { .. } => "secret_file",
            Self::PrivateKey { .. } | Self::UnusableKey { .. } => "public_key_file",
            Self::Read { setting, .. } => setting,
            Self::Config(_) | Self::HttpClient(_) => return self,
        };
        Self::Config(Problem::new(format!("auth.issuers[{index}].{file}"), self.to_string()))
    }
}
