//! JSON Web Key Sets (RFC 7517): which of the published keys may verify what.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{AuthError, keys::VerificationKey};

/// The keys of a published set that the issuer's pinned algorithms can use.
#[derive(Debug)]
pub(super) struct JwkSet {
    keys: Vec<PublishedKey>,
}

#[derive(Debug)]
struct PublishedKey {
    id: Option<String>,
    key: Arc<VerificationKey>,
}

impl JwkSet {
    /// Reads a key set and keeps the keys that `pinned` can use.
    ///
    /// A key that cannot be used is left out and does not spoil the others (RFC 7517 §5), so that an issuer may
    /// publish keys for encryption, or of types yet to come. `None` when `json` is not a key set.
    pub(super) fn parse(json: &[u8], pinned: &[Algorithm]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Document<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        let document: Document<'_> = serde_json::from_slice(json).ok()?;
        let usable = |raw: &RawValue| serde_json::from_str::<Jwk>(raw.get()).ok()?.into_published_key(pinned);
        Some(Self { keys: document.keys.into_iter().filter_map(usable).collect() })
    }

    /// How many keys can be used.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key for a token with this `kid` and `alg`; `None` when the set has no key of that id.
    ///
    /// A token without `kid` is unambiguous only while there is a single key to choose from.
    pub(super) fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Option<Result<Arc<VerificationKey>, AuthError>> {
        let candidates = || self.keys.iter().filter(|candidate| id.is_none() || candidate.id.as_deref() == id);
        if id.is_none() && self.keys.len() != 1 {
            return Some(Err(AuthError::UnknownKey));
        }
        // RFC 7517 §4.5: two keys may share an id when they are of different types.
        match candidates().find(|candidate| candidate.key.allows(algorithm)) {
            Some(found) => Some(Ok(Arc::clone(&found.key))),
            None => candidates().next().map(|_| Err(AuthError::AlgorithmNotAllowed)),
        }
    }
}

/// A JSON Web Key (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2), as far as it matters for verifying.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    public_key_use: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    fn into_published_key(self, pinned: &[Algorithm]) -> Option<PublishedKey> {
        let for_signatures = self.public_key_use.as_deref().is_none_or(|purpose| purpose == "sig");
        let for_verifying =
            self.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|name| name == "verify"));
        if !for_signatures || !for_verifying {
            return None;
        }
        let key = self.decoding_key()?;
        let key = match &self.alg {
            None => VerificationKey::new(key, pinned)?,
            Some(name) => {
                let own = pinned.iter().copied().find(|algorithm| name.parse() == Ok(*algorithm))?;
                VerificationKey::new(key, &[own])?
            }
        };
        Some(PublishedKey { id: self.kid, key: Arc::new(key) })
    }

    /// `None` for symmetric keys too: a secret that is published is no secret.
    fn decoding_key(&self) -> Option<DecodingKey> {
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                Some(DecodingKey::from_rsa_raw_components(&decode(self.n.as_ref())?, &decode(self.e.as_ref())?))
            }
            ("EC", Some("P-256")) => self.ec_key(32),
            ("EC", Some("P-384")) => self.ec_key(48),
            ("OKP", Some("Ed25519")) => Some(DecodingKey::from_ed_der(&decode(self.x.as_ref())?)),
            _ => None,
        }
    }

    /// The uncompressed point (SEC 1 §2.3.3). Coordinates have the full length of the field (RFC 7518 §6.2.1.2):
    /// shorter ones would shift the boundary between x and y.
    fn ec_key(&self, coordinate_bytes: usize) -> Option<DecodingKey> {
        let (x, y) = (decode(self.x.as_ref())?, decode(self.y.as_ref())?);
        (x.len() == coordinate_bytes && y.len() == coordinate_bytes)
            .then(|| DecodingKey::from_ec_der(&[&[0x04], x.as_slice(), y.as_slice()].concat()))
    }
}

fn decode(member: Option<&String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(member?).ok()
}
