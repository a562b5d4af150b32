//! Whatever is sent: no panic, and nobody gets in.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::{signers::HMAC, *};

fn authenticate(authorization: &str) -> Result<Principal, AuthError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        authenticator(&shared_secret_config(), &Clock::manual(now())).await.authenticate(Some(authorization)).await
    })
}

proptest! {
    #[test]
    fn arbitrary_text_never_authenticates(text in ".*") {
        prop_assert!(authenticate(&text).is_err());
        let result = authenticate(&format!("Bearer {text}"));
        prop_assert!(result.is_err());
    }

    #[test]
    fn arbitrary_parts_never_authenticate(header in any::<Vec<u8>>(), payload in any::<Vec<u8>>(), signature in any::<Vec<u8>>()) {
        let parts = [header, payload, signature].map(|part| URL_SAFE_NO_PAD.encode(part));
        let result = authenticate(&format!("Bearer {}", parts.join(".")));
        prop_assert!(result.is_err());
    }

    #[test]
    fn plausible_tokens_with_made_up_signatures_never_authenticate(
        algorithm in prop::sample::select(vec!["HS256", "HS384", "RS256", "none", "", "ES256"]),
        signature in any::<Vec<u8>>(),
    ) {
        let header = URL_SAFE_NO_PAD.encode(json!({ "alg": algorithm }).to_string());
        let payload = URL_SAFE_NO_PAD.encode(claims().to_string());
        let signature = URL_SAFE_NO_PAD.encode(signature);
        let result = authenticate(&format!("Bearer {header}.{payload}.{signature}"));
        prop_assert!(result.is_err());
    }

    #[test]
    fn changing_any_character_of_a_token_invalidates_it(position in any::<prop::sample::Index>(), replacement in "[A-Za-z0-9_.-]") {
        let good = bearer(&HMAC, &Header::new(Algorithm::HS256), &claims());
        prop_assert!(authenticate(&good).is_ok());
        let position = "Bearer ".len() + position.index(good.len() - "Bearer ".len());
        prop_assume!(good[position..=position] != replacement);
        let mut changed = good;
        changed.replace_range(position..=position, &replacement);
        prop_assert!(authenticate(&changed).is_err(), "{}", changed);
    }

    #[test]
    fn arbitrary_claims_never_panic(name in "iss|aud|sub|exp|nbf|scope|x", value in ".*") {
        let mut changed = claims();
        changed[&name] = serde_json::from_str(&value).unwrap_or(Value::String(value));
        let _ = authenticate(&bearer(&HMAC, &Header::new(Algorithm::HS256), &changed));
    }

    #[test]
    fn arbitrary_key_sets_never_panic(json in any::<Vec<u8>>(), n in "[A-Za-z0-9_-]{0,90}", kty in "RSA|EC|OKP|oct", crv in "P-256|P-384|Ed25519") {
        let pinned = [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];
        prop_assert!(jwks::JwkSet::parse(&json, &pinned).is_none());
        let set = json!({ "keys": [{ "kty": kty, "crv": crv, "n": n, "e": n, "x": n, "y": n, "k": n }] });
        let parsed = jwks::JwkSet::parse(set.to_string().as_bytes(), &pinned);
        prop_assert!(parsed.is_some_and(|set| set.len() <= 1));
    }
}
