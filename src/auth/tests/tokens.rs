//! What is accepted from an issuer whose key is configured.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use jsonwebtoken::EncodingKey;
use secrecy::SecretString;

use super::{
    signers::{ED25519, HMAC, OTHER_RSA, P256, P384, RSA, pem},
    *,
};

fn hs256(claims: &Value) -> String {
    bearer(&HMAC, &Header::new(Algorithm::HS256), claims)
}

async fn authenticate(config: &AuthConfig, authorization: &str) -> Result<Principal, AuthError> {
    authenticator(config, &Clock::manual(now())).await.authenticate(Some(authorization)).await
}

async fn refused(changes: Value) -> AuthError {
    authenticate(&shared_secret_config(), &hs256(&claims_with(changes))).await.unwrap_err()
}

/// A file that holds `contents`, and the setting that names it.
fn file(setting: &str, contents: &str) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), contents).unwrap();
    let setting = format!("{setting} = '{}'", file.path().display());
    (file, setting)
}

#[tokio::test]
async fn every_algorithm_is_verified_with_the_key_made_for_it() {
    for signer in [&*HMAC, &*RSA, &*P256, &*P384, &*ED25519] {
        for algorithm in signer.algorithms {
            let (_file, setting) = if signer.public_key.is_empty() {
                file("secret_file", SECRET)
            } else {
                file("public_key_file", &signer.public_key)
            };
            let config = config(&format!("algorithms = [\"{algorithm:?}\"]\n{setting}"));
            let authenticator = authenticator(&config, &Clock::manual(now())).await;
            let authorization = bearer(signer, &Header::new(*algorithm), &claims());
            let principal = authenticator.authenticate(Some(&authorization)).await.unwrap();
            assert_eq!((principal.issuer.as_str(), principal.subject.as_str()), (ISSUER, "alice"), "{algorithm:?}");

            let other_claims = bearer(signer, &Header::new(*algorithm), &claims_with(json!({ "sub": "bob" })));
            let (message, _) = other_claims.rsplit_once('.').unwrap();
            let (_, signature) = authorization.rsplit_once('.').unwrap();
            let spliced = authenticator.authenticate(Some(&format!("{message}.{signature}"))).await;
            assert_eq!(spliced, Err(AuthError::SignatureInvalid), "{algorithm:?}");
        }
    }
}

#[tokio::test]
async fn unsigned_tokens_are_refused() {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    let payload = URL_SAFE_NO_PAD.encode(claims().to_string());
    let unsigned = authenticate(&shared_secret_config(), &format!("Bearer {header}.{payload}.")).await;
    assert_eq!(unsigned, Err(AuthError::AlgorithmNotAllowed));

    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let unsigned = authenticate(&shared_secret_config(), &format!("Bearer {header}.{payload}.")).await;
    assert_eq!(unsigned, Err(AuthError::SignatureInvalid));
}

#[tokio::test]
async fn a_public_key_is_never_taken_for_a_shared_secret() {
    let (_file, setting) = file("public_key_file", &RSA.public_key);
    let config = config(&format!("algorithms = [\"RS256\"]\n{setting}"));
    let confused = Signer {
        signing_key: EncodingKey::from_secret(RSA.public_key.as_bytes()),
        algorithms: &[Algorithm::HS256],
        public_key: String::new(),
        private_key: String::new(),
    };
    let result = authenticate(&config, &bearer(&confused, &Header::new(Algorithm::HS256), &claims())).await;
    assert_eq!(result, Err(AuthError::AlgorithmNotAllowed));

    let mut confusable = config.clone();
    confusable.issuers[0].algorithms.push(Algorithm::HS256);
    let error = Authenticator::from_config(&confusable, Clock::System, Handle::current()).await.unwrap_err();
    assert!(matches!(error, AuthSetupError::Config(problem) if problem.key == "auth.issuers[0].algorithms"));
}

#[tokio::test]
async fn only_pinned_algorithms_are_accepted() {
    let (_file, setting) = file("public_key_file", &RSA.public_key);
    let config = config(&format!("algorithms = [\"RS256\"]\n{setting}"));
    for (algorithm, expected) in [
        (Algorithm::RS256, None),
        (Algorithm::RS512, Some(AuthError::AlgorithmNotAllowed)),
        (Algorithm::PS256, Some(AuthError::AlgorithmNotAllowed)),
    ] {
        let result = authenticate(&config, &bearer(&RSA, &Header::new(algorithm), &claims())).await;
        assert_eq!(result.err(), expected, "{algorithm:?}");
    }
}

#[tokio::test]
async fn a_key_that_the_token_brings_along_is_not_used() {
    let (_file, setting) = file("public_key_file", &RSA.public_key);
    let config = config(&format!("algorithms = [\"RS256\"]\n{setting}"));
    let mut header = Header::new(Algorithm::RS256);
    header.jwk = Some(serde_json::from_value(OTHER_RSA.jwk("mine")).unwrap());
    header.jku = Some("http://127.0.0.1:1/jwks.json".to_owned());
    header.x5u = Some("http://127.0.0.1:1/chain.pem".to_owned());
    header.x5c = Some(vec!["AAAA".to_owned()]);
    let result = authenticate(&config, &bearer(&OTHER_RSA, &header, &claims())).await;
    assert_eq!(result, Err(AuthError::SignatureInvalid));
}

#[tokio::test]
async fn expiry_and_start_are_exact_to_the_millisecond_and_forgive_the_leeway() {
    let clock = Clock::manual(now());
    let authenticator = authenticator(&shared_secret_config(), &clock).await;
    let authorization = hs256(&claims_with(json!({ "nbf": now().timestamp(), "exp": now().timestamp() + 300 })));
    let leeway = TimeDelta::seconds(30);
    let millisecond = TimeDelta::milliseconds(1);
    let expires = now() + TimeDelta::seconds(300);
    for (at, expected) in [
        (now() - leeway - millisecond, Some(AuthError::NotYetValid)),
        (now() - leeway, None),
        (expires + leeway - millisecond, None),
        (expires + leeway, Some(AuthError::Expired)),
    ] {
        clock.set(at);
        assert_eq!(authenticator.authenticate(Some(&authorization)).await.err(), expected, "{at}");
    }
}

#[tokio::test]
async fn dates_may_have_fractions_and_nothing_else() {
    let config = config_with("leeway = \"0s\"", &format!("algorithms = [\"HS256\"]\nsecret = \"{SECRET}\""));
    let seconds = now().timestamp();
    let dates = |exp: &str| {
        let payload = format!(r#"{{"iss":"{ISSUER}","aud":"presignd","sub":"alice","exp":{exp}}}"#);
        hs256(&serde_json::from_str(&payload).unwrap())
    };
    for (exp, expected) in [
        (format!("{seconds}.001"), None),
        (format!("{seconds}"), Some(AuthError::Expired)),
        ("1e30".to_owned(), Some(AuthError::InvalidClaim("exp"))),
        ("18446744073709551615".to_owned(), Some(AuthError::InvalidClaim("exp"))),
        ("9223372036854775807".to_owned(), Some(AuthError::InvalidClaim("exp"))),
        ("-1".to_owned(), Some(AuthError::Expired)),
        (format!("\"{}\"", seconds + 60), Some(AuthError::InvalidClaim("exp"))),
        ("[]".to_owned(), Some(AuthError::InvalidClaim("exp"))),
        ("null".to_owned(), Some(AuthError::MissingClaim("exp"))),
    ] {
        assert_eq!(authenticate(&config, &dates(&exp)).await.err(), expected, "{exp}");
    }
}

#[tokio::test]
async fn required_claims_are_required() {
    assert_eq!(refused(json!({ "exp": null })).await, AuthError::MissingClaim("exp"));
    assert_eq!(refused(json!({ "sub": null })).await, AuthError::MissingClaim("sub"));
    assert_eq!(refused(json!({ "iss": null })).await, AuthError::MissingClaim("iss"));
    assert_eq!(refused(json!({ "aud": null })).await, AuthError::MissingClaim("aud"));
    assert_eq!(refused(json!({ "nbf": "soon" })).await, AuthError::InvalidClaim("nbf"));
}

#[tokio::test]
async fn issuer_and_audience_match_exactly() {
    for issuer in ["https://id.example.com", "https://ID.example.com/", "https://id.example.com/ ", ""] {
        assert_eq!(refused(json!({ "iss": issuer })).await, AuthError::UnknownIssuer, "{issuer:?}");
    }
    assert_eq!(refused(json!({ "iss": [ISSUER] })).await, AuthError::InvalidClaim("iss"));
    for audience in [json!("presign"), json!("PRESIGND"), json!([]), json!(["other"]), json!("presignd files")] {
        assert_eq!(refused(json!({ "aud": audience })).await, AuthError::WrongAudience);
    }
    assert_eq!(refused(json!({ "aud": ["presignd", 1] })).await, AuthError::InvalidClaim("aud"));
    let listed = hs256(&claims_with(json!({ "aud": ["other", "files"] })));
    assert!(authenticate(&shared_secret_config(), &listed).await.is_ok());
}

#[tokio::test]
async fn subjects_fit_into_a_column_and_a_log_line() {
    for subject in [json!(""), json!("a".repeat(256)), json!("a\nb"), json!("a\u{0}"), json!("\u{85}"), json!(7)] {
        assert_eq!(refused(json!({ "sub": subject })).await, AuthError::InvalidClaim("sub"), "{subject}");
    }
    for subject in ["a".repeat(255), "auth0|5f\"1/é".to_owned()] {
        let token = hs256(&claims_with(json!({ "sub": subject })));
        assert_eq!(authenticate(&shared_secret_config(), &token).await.unwrap().subject, subject);
    }
}

#[tokio::test]
async fn claims_that_are_there_twice_are_refused() {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    for payload in [
        format!(r#"{{"iss":"{ISSUER}","iss":"{ISSUER}"}}"#),
        format!(r#"{{"iss":"{ISSUER}","sub":"alice","\u0073ub":"bob"}}"#),
        "[]".to_owned(),
        format!(r#"{{"iss":"{ISSUER}"}} {{}}"#),
    ] {
        let authorization = format!("Bearer {header}.{}.AAAA", URL_SAFE_NO_PAD.encode(&payload));
        let result = authenticate(&shared_secret_config(), &authorization).await;
        assert_eq!(result, Err(AuthError::Malformed), "{payload}");
    }
}

#[tokio::test]
async fn tenants_come_from_the_configured_claim() {
    let config = config(&format!("algorithms = [\"HS256\"]\nsecret = \"{SECRET}\"\ntenant_claim = \"org_id\""));
    let of =
        async |changes| authenticate(&config, &hs256(&claims_with(changes))).await.map(|principal| principal.tenant);
    assert_eq!(of(json!({ "org_id": "acme" })).await, Ok(Some("acme".to_owned())));
    assert_eq!(of(json!({})).await, Err(AuthError::TenantMissing));
    assert_eq!(of(json!({ "org_id": "" })).await, Err(AuthError::InvalidClaim("tenant")));
    assert_eq!(of(json!({ "org_id": 7 })).await, Err(AuthError::InvalidClaim("tenant")));
    let unconfigured = hs256(&claims_with(json!({ "org_id": "acme" })));
    assert_eq!(authenticate(&shared_secret_config(), &unconfigured).await.unwrap().tenant, None);
}

#[tokio::test]
async fn scopes_allow_what_they_are_configured_for() {
    let issuer = format!("algorithms = [\"HS256\"]\nsecret = \"{SECRET}\"");
    let all = "[scopes]\nclaim = \"scp\"\nupload = \"w\"\ndownload = \"r\"\nadmin = \"a\"";
    let may = async |settings: &str, scopes: Value| {
        let token = hs256(&claims_with(json!({ "scp": scopes })));
        let principal = authenticate(&config_with(settings, &issuer), &token).await?;
        Ok((principal.can_upload, principal.can_download, principal.can_administer))
    };
    for (scopes, expected) in [
        (json!("w r a"), (true, true, true)),
        (json!("w"), (true, false, false)),
        (json!(["r", "x"]), (false, true, false)),
        (json!(["x a"]), (false, false, true)),
        (json!("ww ra"), (false, false, false)),
        (json!(""), (false, false, false)),
        (json!([]), (false, false, false)),
        (json!(null), (false, false, false)),
    ] {
        assert_eq!(may(all, scopes.clone()).await, Ok(expected), "{scopes}");
    }
    assert_eq!(may(all, json!({ "w": true })).await, Err(AuthError::InvalidClaim("scope")));
    let partner = config_with(all, &format!("{issuer}\nadministers = false"));
    let principal = authenticate(&partner, &hs256(&claims_with(json!({ "scp": "w r a" })))).await.unwrap();
    assert!(principal.can_upload && !principal.can_administer, "the issuer is trusted with its own users alone");
    // Without configured scopes everybody may move files, and nobody is an administrator.
    assert_eq!(may("[scopes]\nclaim = \"scp\"", json!("admin a")).await, Ok((true, true, false)));
}

#[tokio::test]
async fn issuers_do_not_vouch_for_each_other() {
    let mut config = shared_secret_config();
    let other_secret = "another secret that is long enough for HS256";
    config.issuers.push(IssuerConfig {
        issuer: "https://other.example.com/".to_owned(),
        secret: Some(SecretString::from(other_secret)),
        ..config.issuers[0].clone()
    });
    let token_of_other = |issuer: &str| {
        let key = EncodingKey::from_secret(other_secret.as_bytes());
        let claims = claims_with(json!({ "iss": issuer }));
        format!("Bearer {}", jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap())
    };
    assert!(authenticate(&config, &token_of_other("https://other.example.com/")).await.is_ok());
    assert_eq!(authenticate(&config, &token_of_other(ISSUER)).await, Err(AuthError::SignatureInvalid));
}

/// Whether that is a refusal of this setting of the first issuer, for this reason.
fn refuses(result: &Result<Authenticator, AuthSetupError>, setting: &str, reason: &str) -> bool {
    let key = format!("auth.issuers[0].{setting}");
    matches!(result, Err(AuthSetupError::Config(problem)) if problem.key == key && problem.rule.contains(reason))
}

#[tokio::test]
async fn unusable_key_files_are_refused_at_start() {
    let weak = pem(
        "RSA PUBLIC KEY",
        &[&[0x30, 0x81, 0x89, 0x02, 0x81, 0x81, 0x00][..], &[0xff; 128], &[2, 3, 1, 0, 1]].concat(),
    );
    for (algorithms, contents) in [
        ("\"RS256\"", P256.public_key.as_str()),
        ("\"ES256\"", P384.public_key.as_str()),
        ("\"ES256\", \"ES384\"", P256.public_key.as_str()),
        ("\"EdDSA\"", RSA.public_key.as_str()),
        ("\"RS256\"", weak.as_str()),
        ("\"RS256\"", "not PEM"),
        ("\"RS256\"", ""),
    ] {
        let (_file, setting) = file("public_key_file", contents);
        let config = config(&format!("algorithms = [{algorithms}]\n{setting}"));
        let result = Authenticator::from_config(&config, Clock::System, Handle::current()).await;
        assert!(
            refuses(&result, "public_key_file", "must hold a PEM public key"),
            "{algorithms} {contents} {result:?}"
        );
    }
    for signer in [&*RSA, &*P256] {
        let (_file, setting) = file("public_key_file", &signer.private_key);
        let config = config(&format!("algorithms = [\"{:?}\"]\n{setting}", signer.algorithms[0]));
        let result = Authenticator::from_config(&config, Clock::System, Handle::current()).await;
        assert!(refuses(&result, "public_key_file", "holds a private key"), "{result:?}");
    }
    let config = config("algorithms = [\"RS256\"]\npublic_key_file = '/nonexistent/key.pem'");
    let result = Authenticator::from_config(&config, Clock::System, Handle::current()).await;
    assert!(refuses(&result, "public_key_file", "cannot read"), "{result:?}");
}

#[tokio::test]
async fn secret_files_lose_one_line_end_and_must_be_long_enough() {
    let secret = "0123456789abcdef0123456789abcdef";
    let signer = EncodingKey::from_secret(secret.as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(), &signer).unwrap();
    for (contents, expected) in [
        (format!("{secret}\n"), Ok(())),
        (format!("{secret}\r\n"), Ok(())),
        (secret.to_owned(), Ok(())),
        (format!("{secret}\n\n"), Err(AuthError::SignatureInvalid)),
    ] {
        let (_file, setting) = file("secret_file", &contents);
        let config = config(&format!("algorithms = [\"HS256\"]\n{setting}"));
        let result = authenticate(&config, &format!("Bearer {token}")).await;
        assert_eq!(result.map(|_| ()), expected, "{contents:?}");
    }
    let (_file, setting) = file("secret_file", &format!("{}\n", &secret[1..]));
    let config = config(&format!("algorithms = [\"HS256\"]\n{setting}"));
    let result = Authenticator::from_config(&config, Clock::System, Handle::current()).await;
    assert!(refuses(&result, "secret_file", "at least 32 bytes"));
    assert!(!format!("{result:?}").contains(&secret[1..]));
}

#[tokio::test]
async fn minted_tokens_are_accepted_until_they_expire() {
    let secret = SecretString::from(SECRET);
    let token = DevelopmentToken {
        issuer: ISSUER,
        audience: "files",
        subject: "dev",
        tenant: Some(("org_id", "acme")),
        scope_claim: "scope",
        scopes: &["files:write", "files:admin"],
        lifetime: std::time::Duration::from_hours(1),
        algorithm: Algorithm::HS256,
    };
    let minted = mint_development_token(&secret, &token, now()).unwrap();
    let config = config_with(
        "[scopes]\nupload = \"files:write\"\ndownload = \"files:read\"\nadmin = \"files:admin\"",
        &format!("algorithms = [\"HS256\"]\nsecret = \"{SECRET}\"\ntenant_claim = \"org_id\""),
    );
    let clock = Clock::manual(now());
    let authenticator = authenticator(&config, &clock).await;
    let authorization = format!("Bearer {}", minted.expose_secret());
    assert_eq!(
        authenticator.authenticate(Some(&authorization)).await,
        Ok(Principal {
            issuer: ISSUER.to_owned(),
            subject: "dev".to_owned(),
            tenant: Some("acme".to_owned()),
            can_upload: true,
            can_download: false,
            can_administer: true,
            authenticated_until: now() + TimeDelta::hours(1) + TimeDelta::seconds(30),
        })
    );
    clock.set(now() + TimeDelta::hours(1) + TimeDelta::seconds(30));
    assert_eq!(authenticator.authenticate(Some(&authorization)).await, Err(AuthError::Expired));

    let short = SecretString::from("0123456789abcdef0123456789abcde");
    assert_eq!(mint_development_token(&short, &token, now()).unwrap_err(), MintError::SecretTooShort);
    let forever = DevelopmentToken { lifetime: std::time::Duration::MAX, ..token };
    assert_eq!(mint_development_token(&secret, &forever, now()).unwrap_err(), MintError::LifetimeTooLong);
}

#[tokio::test]
async fn nothing_secret_is_shown() {
    let config = shared_secret_config();
    let authenticator = authenticator(&config, &Clock::manual(now())).await;
    assert_eq!(format!("{authenticator:?}"), format!("Authenticator {{ issuers: [{ISSUER:?}], .. }}"));
    assert!(!format!("{config:?}").contains(SECRET));
    let key = VerificationKey::new(DecodingKey::from_secret(SECRET.as_bytes()), &[Algorithm::HS256]).unwrap();
    let bytes = format!("{:?}", SECRET.as_bytes());
    let shown = format!("{key:?}");
    assert!(!shown.contains(SECRET) && !shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");

    let authorization = hs256(&claims_with(json!({ "sub": "subject-marker\n" })));
    let error = authenticator.authenticate(Some(&authorization)).await.unwrap_err();
    let shown = format!("{error} {error:?} {}", error.reason());
    assert!(!shown.contains("marker"), "{shown}");
    assert!(authorization.split(['.', ' ']).skip(1).all(|part| !shown.contains(part)), "{shown}");
    assert!(authenticator.ready().is_ok());
}

#[test]
fn reasons_are_distinct_and_in_snake_case() {
    use AuthError as E;
    let errors = [
        E::Missing,
        E::NotBearer,
        E::TooLarge,
        E::Malformed,
        E::TypeNotAllowed,
        E::CriticalHeader,
        E::UnknownIssuer,
        E::AlgorithmNotAllowed,
        E::UnknownKey,
        E::KeysUnavailable,
        E::SignatureInvalid,
        E::Expired,
        E::NotYetValid,
        E::WrongAudience,
        E::MissingClaim("sub"),
        E::InvalidClaim("sub"),
        E::TenantMissing,
    ];
    let reasons: std::collections::HashSet<_> = errors.iter().map(AuthError::reason).collect();
    assert_eq!(reasons.len(), errors.len());
    assert!(reasons.iter().all(|reason| reason.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    assert_eq!(E::Expired.reason(), "token_expired");
}
