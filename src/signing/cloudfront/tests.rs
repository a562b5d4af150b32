use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_2048_8192_SHA256,
        RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
    },
};
use chrono::TimeDelta;
use secrecy::SecretString;

use super::*;
use crate::model::IpScope;

const DOMAIN: &str = "d111111abcdef8.cloudfront.net";

/// The policy of "Example `Set-Cookie` headers for custom policies" in the Amazon CloudFront Developer Guide.
const PUBLISHED_POLICY: &str = "eyJTdGF0ZW1lbnQiOlt7IlJlc291cmNlIjoiaHR0cDovL2QxMTExMTFhYmNkZWY4LmNsb3VkZnJvbnQubmV0L2dhbWVfZG93bmxvYWQuemlwIiwiQ29uZGl0aW9uIjp7IklwQWRkcmVzcyI6eyJBV1M6U291cmNlSXAiOiIxOTIuMC4yLjAvMjQifSwiRGF0ZUxlc3NUaGFuIjp7IkFXUzpFcG9jaFRpbWUiOjE0MjY1MDAwMDB9fX1dfQ__";

fn pem(der: &[u8]) -> SecretString {
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der)).into()
}

fn rsa(size: KeySize) -> (SecretString, Vec<u8>) {
    let key = RsaKeyPair::generate(size).unwrap();
    let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
    (pem(der.as_ref()), key.public_key().as_ref().to_vec())
}

fn ecdsa() -> (SecretString, Vec<u8>) {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    (pem(key.to_pkcs8v1().unwrap().as_ref()), key.public_key().as_ref().to_vec())
}

fn key_pair(id: &str) -> KeyPair {
    KeyPair::from_pem(id, None, &ecdsa().0).unwrap()
}

fn distribution(origin_path: &str) -> CloudFront {
    CloudFront::new(DOMAIN, origin_path, vec![key_pair("K2JCJMDEHXQW5F")]).unwrap()
}

fn network(address: &str, v4: u8) -> Option<ClientNetwork> {
    ClientNetwork::of(address.parse().unwrap(), IpScope::Prefix { v4, v6: 64 })
}

fn now() -> DateTime<Utc> {
    "2026-03-01T12:00:00.75Z".parse().unwrap()
}

fn presign(cloudfront: &CloudFront, key: &str) -> Result<String, CloudFrontError> {
    let key = ObjectKey::parse(key).unwrap();
    let network = network("192.0.2.7", 32);
    cloudfront.presign(&key, &[], network, now(), Duration::from_mins(1)).map(PresignedUrl::into_url)
}

/// The text that was signed, and the signature.
fn decoded(url: &str) -> (String, Vec<u8>) {
    let parameter = |name: &str| {
        let (_, rest) = url.split_once(&format!("{name}=")).unwrap();
        let text = rest.split(['&', ';']).next().unwrap();
        STANDARD.decode(text.replace('-', "+").replace('_', "=").replace('~', "/")).unwrap()
    };
    (String::from_utf8(parameter("Policy")).unwrap(), parameter("Signature"))
}

#[test]
fn published_example_has_this_policy() {
    let resource = format!("http://{DOMAIN}/game_download.zip");
    let policy =
        custom_policy(&resource, network("192.0.2.7", 24), DateTime::from_timestamp(1_426_500_000, 0).unwrap());
    assert_eq!(encoded(policy.as_bytes()), PUBLISHED_POLICY);
}

#[test]
fn characters_that_mean_something_in_a_url_are_exchanged() {
    assert_eq!(encoded(&[0xfb, 0xef, 0xff, 0xff]), "--~~~w__");
}

#[test]
fn a_url_binds_itself_its_network_and_its_end() {
    let key = ObjectKey::parse("uploads/2026/a b*?é.pdf").unwrap();
    let query = [("response-content-disposition", "attachment; filename=\"a b.pdf\""), ("versionId", "1")];
    let life = Duration::from_mins(1);
    let signed = distribution("").presign(&key, &query, network("192.0.2.7", 32), now(), life).unwrap();
    assert_eq!(signed.expires_at, "2026-03-01T12:01:00Z".parse::<DateTime<Utc>>().unwrap());
    let (resource, rest) = signed.url().split_once("&Policy=").unwrap();
    assert_eq!(
        resource,
        "https://d111111abcdef8.cloudfront.net/uploads/2026/a%20b%2A%3F%C3%A9.pdf\
         ?response-content-disposition=attachment%3B%20filename%3D%22a%20b.pdf%22&versionId=1"
    );
    assert!(rest.ends_with("&Key-Pair-Id=K2JCJMDEHXQW5F&Hash-Algorithm=SHA256"), "{rest}");
    let (policy, _) = decoded(signed.url());
    assert_eq!(
        policy,
        format!(
            r#"{{"Statement":[{{"Resource":"{resource}","Condition":{{"IpAddress":{{"AWS:SourceIp":"192.0.2.7/32"}},"DateLessThan":{{"AWS:EpochTime":1772366460}}}}}}]}}"#
        )
    );
    let unscoped = distribution("").presign(&key, &[], None, now(), life).unwrap();
    assert!(!decoded(unscoped.url()).0.contains("IpAddress"));
    assert!(unscoped.url().contains(".pdf?Policy="), "{}", unscoped.url());
}

#[test]
fn both_kinds_of_keys_sign_what_their_public_halves_verify() {
    let (rsa_pem, rsa_public) = rsa(KeySize::Rsa2048);
    let (ecdsa_pem, ecdsa_public) = ecdsa();
    let algorithms: [&dyn VerificationAlgorithm; 2] = [&RSA_PKCS1_2048_8192_SHA256, &ECDSA_P256_SHA256_ASN1];
    let keys = [(rsa_pem, rsa_public), (ecdsa_pem, ecdsa_public)];
    for ((pem, public_key), algorithm) in keys.into_iter().zip(algorithms) {
        let keys = vec![KeyPair::from_pem("K1", None, &pem).unwrap()];
        let (policy, signature) = decoded(&presign(&CloudFront::new(DOMAIN, "", keys).unwrap(), "a").unwrap());
        UnparsedPublicKey::new(algorithm, public_key).verify(policy.as_bytes(), &signature).unwrap();
    }
}

#[test]
fn the_first_active_key_pair_signs() {
    let pem = ecdsa().0;
    let planned = KeyPair::from_pem("KNEW", Some(now() + TimeDelta::seconds(1)), &pem).unwrap();
    let keys = vec![planned, KeyPair::from_pem("KOLD", None, &pem).unwrap()];
    let cloudfront = CloudFront::new(DOMAIN, "", keys).unwrap();
    let key = ObjectKey::parse("a").unwrap();
    for (seconds, id) in [(0, "KOLD"), (1, "KNEW"), (2, "KNEW")] {
        let at = now() + TimeDelta::seconds(seconds);
        let url = cloudfront.presign(&key, &[], None, at, Duration::from_mins(1)).unwrap().into_url();
        assert!(url.contains(&format!("&Key-Pair-Id={id}&")), "{seconds}: {url}");
    }
    let planned = vec![KeyPair::from_pem("KNEW", Some(now() + TimeDelta::seconds(1)), &pem).unwrap()];
    let refused = presign(&CloudFront::new(DOMAIN, "", planned).unwrap(), "a");
    assert!(matches!(refused, Err(CloudFrontError::NoActiveKey)));
}

#[test]
fn an_ipv6_network_is_refused_and_never_left_out() {
    let key = ObjectKey::parse("a").unwrap();
    let (cloudfront, network) = (distribution(""), network("2001:db8::1", 32));
    let refused = cloudfront.presign(&key, &[], network, now(), Duration::from_mins(1));
    assert!(matches!(refused, Err(CloudFrontError::Ipv6Network)));
    let scope = CookieScope::new(None, SameSite::Lax).unwrap();
    let refused = cloudfront.sign_cookies(&key, network, now(), Duration::from_mins(1), scope);
    assert!(matches!(refused, Err(CloudFrontError::Ipv6Network)));
}

#[test]
fn what_the_distribution_prepends_is_left_out() {
    for (origin_path, key, path) in [
        ("", "uploads/a.pdf", Some("/uploads/a.pdf")),
        ("/uploads", "uploads/a.pdf", Some("/a.pdf")),
        ("uploads/2026/", "uploads/2026/b/a.pdf", Some("/b/a.pdf")),
        ("uploads", "uploads2/a.pdf", None),
        ("uploads", "other/a.pdf", None),
        ("uploads", "uploads", None),
    ] {
        let signed = presign(&distribution(origin_path), key);
        match path {
            Some(path) => assert!(signed.unwrap().starts_with(&format!("https://{DOMAIN}{path}?Policy="))),
            None => assert!(matches!(signed, Err(CloudFrontError::OutOfReach)), "{origin_path} {key}"),
        }
    }
    assert!(CloudFront::new(DOMAIN, "a/../b", Vec::new()).is_err());
    for domain in ["https://d1.cloudfront.net", "d1.cloudfront.net/x", "d1.cloudfront.net:443", "192.0.2.1", "", "a\"b"]
    {
        assert!(CloudFront::new(domain, "", Vec::new()).is_err(), "{domain}");
    }
}

#[test]
fn cookies_open_what_is_below_a_prefix_and_nothing_beside_it() {
    let prefix = ObjectKey::parse("public/acme").unwrap();
    let scope = CookieScope::new(Some("example.org"), SameSite::None).unwrap();
    let life = Duration::from_mins(1);
    let cookies = distribution("").sign_cookies(&prefix, network("192.0.2.7", 24), now(), life, scope).unwrap();
    let headers = cookies.set_cookie_headers();
    let (policy, _) = decoded(&headers.join("; "));
    assert!(policy.contains(&format!(r#""Resource":"https://{DOMAIN}/public/acme/*""#)), "{policy}");
    assert!(policy.contains(r#""AWS:SourceIp":"192.0.2.0/24""#), "{policy}");
    let names: Vec<_> = headers.iter().map(|header| header.split('=').next().unwrap()).collect();
    let expected = ["CloudFront-Policy", "CloudFront-Signature", "CloudFront-Key-Pair-Id", "CloudFront-Hash-Algorithm"];
    assert_eq!(names, expected);
    for header in headers {
        assert!(header.ends_with("; Domain=example.org; Path=/public/acme/; Secure; HttpOnly; SameSite=None"));
        assert!(!header.contains("Expires=") && !header.contains("Max-Age"));
    }
    let scope = CookieScope::new(None, SameSite::Strict).unwrap();
    let cookies = distribution("public").sign_cookies(&prefix, None, now(), life, scope).unwrap();
    assert!(
        cookies.set_cookie_headers()[2]
            == "CloudFront-Key-Pair-Id=K2JCJMDEHXQW5F; Path=/acme/; Secure; HttpOnly; SameSite=Strict"
    );
    for domain in ["example.org; Secure", ".example.org", "192.0.2.1", ""] {
        assert!(CookieScope::new(Some(domain), SameSite::Lax).is_err(), "{domain}");
    }
    assert_eq!(format!("{cookies:?}"), "SignedCookies { expires_at: 2026-03-01T12:01:00Z, .. }");
}

#[test]
fn keys_that_cloudfront_does_not_take_are_refused() {
    let short = SecretString::from("-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n");
    for (id, pem, expected) in [
        ("K1", "no key".into(), KeyPairError::Pem),
        ("K1", short, KeyPairError::Unsupported),
        ("K1", rsa(KeySize::Rsa3072).0, KeyPairError::Unsupported),
        ("", ecdsa().0, KeyPairError::Id),
        ("K1&x=", ecdsa().0, KeyPairError::Id),
    ] {
        assert_eq!(KeyPair::from_pem(id, None, &pem).unwrap_err(), expected, "{id}");
    }
}

#[test]
fn lives_are_whole_seconds_that_end_some_day() {
    let key = ObjectKey::parse("a").unwrap();
    for life in [Duration::ZERO, Duration::from_millis(1500), Duration::MAX] {
        assert!(distribution("").presign(&key, &[], None, now(), life).is_err(), "{life:?}");
    }
}

#[test]
fn debug_shows_nothing_of_a_private_key() {
    let (pem, _) = ecdsa();
    let cloudfront = CloudFront::new(DOMAIN, "x", vec![KeyPair::from_pem("K1", None, &pem).unwrap()]).unwrap();
    let shown = format!("{cloudfront:?}");
    let expected = format!(
        "CloudFront {{ origin: \"https://{DOMAIN}\", origin_path: \"x\", key_pairs: [KeyPair {{ id: \"K1\", active_from: \
         None, .. }}] }}"
    );
    assert_eq!(shown, expected);
}
