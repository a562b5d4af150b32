//! Keys of every kind, made once per run.

use std::sync::LazyLock;

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
        Ed25519KeyPair, KeyPair as _, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, jwk::Jwk};
use serde_json::Value;

use super::SECRET;

/// What an issuer signs with.
pub(super) struct Signer {
    pub(super) signing_key: EncodingKey,
    pub(super) algorithms: &'static [Algorithm],
    /// PEM; empty for a shared secret.
    pub(super) public_key: String,
    /// PEM; empty for a shared secret.
    pub(super) private_key: String,
}

impl Signer {
    /// The public key as a member of a key set.
    pub(super) fn jwk(&self, kid: &str) -> Value {
        let mut jwk =
            serde_json::to_value(Jwk::from_encoding_key(&self.signing_key, self.algorithms[0]).unwrap()).unwrap();
        jwk.as_object_mut().unwrap().remove("alg");
        jwk["kid"] = Value::from(kid);
        jwk
    }
}

pub(super) static HMAC: LazyLock<Signer> = LazyLock::new(|| Signer {
    signing_key: EncodingKey::from_secret(SECRET.as_bytes()),
    algorithms: &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
    public_key: String::new(),
    private_key: String::new(),
});

pub(super) static RSA: LazyLock<Signer> = LazyLock::new(rsa);
pub(super) static OTHER_RSA: LazyLock<Signer> = LazyLock::new(rsa);
pub(super) static P256: LazyLock<Signer> =
    LazyLock::new(|| ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, &[Algorithm::ES256]));
pub(super) static P384: LazyLock<Signer> =
    LazyLock::new(|| ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, &[Algorithm::ES384]));

pub(super) static ED25519: LazyLock<Signer> = LazyLock::new(|| {
    let private = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(private.as_ref()).unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let private_key = pem("PRIVATE KEY", private.as_ref());
    Signer {
        signing_key: EncodingKey::from_ed_pem(private_key.as_bytes()).unwrap(),
        algorithms: &[Algorithm::EdDSA],
        public_key: pem("PUBLIC KEY", public.as_ref()),
        private_key,
    }
});

fn rsa() -> Signer {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let private: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let private_key = pem("PRIVATE KEY", private.as_ref());
    Signer {
        signing_key: EncodingKey::from_rsa_pem(private_key.as_bytes()).unwrap(),
        algorithms: &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        public_key: pem("PUBLIC KEY", public.as_ref()),
        private_key,
    }
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm, algorithms: &'static [Algorithm]) -> Signer {
    let private = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, private.as_ref()).unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let private_key = pem("PRIVATE KEY", private.as_ref());
    Signer {
        signing_key: EncodingKey::from_ec_pem(private_key.as_bytes()).unwrap(),
        algorithms,
        public_key: pem("PUBLIC KEY", public.as_ref()),
        private_key,
    }
}

pub(super) fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}
