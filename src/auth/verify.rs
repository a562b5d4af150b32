//! Taking a token apart (RFC 7515 §3.1) before anything in it is believed.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::AuthError;

/// The longest token that is read, in bytes. Servers commonly hold a header to this, and a real token needs less.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The token in the value of an `Authorization` header.
///
/// The scheme is matched without regard to case (RFC 9110 §11.1).
pub(super) fn bearer_token(authorization: Option<&str>) -> Result<&str, AuthError> {
    let value = authorization.ok_or(AuthError::Missing)?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("Bearer") {
        return Err(AuthError::NotBearer);
    }
    let token = token.trim_matches(' ');
    if token.len() > MAX_TOKEN_BYTES { Err(AuthError::TooLarge) } else { Ok(token) }
}

/// A token in the JWS compact serialization. Nothing in it is verified.
pub(super) struct Token<'a> {
    /// `header.payload` as received: what the signature covers.
    pub(super) message: &'a str,
    /// Base64url.
    pub(super) signature: &'a str,
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    /// The JSON of the claims.
    pub(super) payload: Vec<u8>,
}

impl<'a> Token<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, AuthError> {
        let (message, signature) = token.rsplit_once('.').ok_or(AuthError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(AuthError::Malformed)?;
        // A dot more would fail to decode as base64url, so three parts are the only way through.
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| AuthError::Malformed)?;
        if header.has_crit {
            return Err(AuthError::CriticalHeader);
        }
        if !header.typ.as_deref().is_none_or(is_access_token_type) {
            return Err(AuthError::TypeNotAllowed);
        }
        // Names that are not known here, "none" among them, can be pinned for no issuer.
        let algorithm = header.alg.parse().map_err(|_| AuthError::AlgorithmNotAllowed)?;
        Ok(Self { message, signature, algorithm, key_id: header.kid, payload: decode(payload)? })
    }
}

/// `JWT` (RFC 7519 §5.1) or `at+jwt` (RFC 9068 §2.1), with or without `application/`. Tokens that the same issuer
/// signs for other ends, such as logout tokens, name those ends here.
fn is_access_token_type(typ: &str) -> bool {
    let typ = match typ.split_at_checked("application/".len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("application/") => rest,
        _ => typ,
    };
    typ.eq_ignore_ascii_case("JWT") || typ.eq_ignore_ascii_case("at+jwt")
}

/// The header parameters that matter. A parameter that is there twice is an error (RFC 7515 §4).
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    #[serde(default, rename = "crit", deserialize_with = "present")]
    has_crit: bool,
}

/// True whatever the value is, `null` included.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

fn decode(part: &str) -> Result<Vec<u8>, AuthError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        for value in ["Bearer abc", "bearer abc", "BEARER  abc "] {
            assert_eq!(bearer_token(Some(value)), Ok("abc"));
        }
        assert_eq!(bearer_token(None), Err(AuthError::Missing));
        for value in ["", "abc", "Basic abc", "Bearerabc", "Bearer\tabc", " Bearer abc"] {
            assert_eq!(bearer_token(Some(value)), Err(AuthError::NotBearer), "{value:?}");
        }
    }

    #[test]
    fn long_tokens_are_refused_before_they_are_read() {
        let longest = format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES));
        assert!(bearer_token(Some(&longest)).is_ok());
        assert_eq!(bearer_token(Some(&format!("{longest}a"))), Err(AuthError::TooLarge));
    }

    fn parse(header: &str) -> Result<Algorithm, AuthError> {
        let token = format!("{}.{}.AAAA", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode("{}"));
        Token::parse(&token).map(|token| token.algorithm)
    }

    #[test]
    fn headers_are_held_to_their_rules() {
        assert_eq!(parse(r#"{"alg":"RS256"}"#), Ok(Algorithm::RS256));
        for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "Application/jwt"] {
            assert_eq!(parse(&format!(r#"{{"alg":"HS256","typ":"{typ}"}}"#)), Ok(Algorithm::HS256), "{typ}");
        }
        for typ in ["", "logout+jwt", "JOSE", "application/", "éééééé+jwt"] {
            assert_eq!(parse(&format!(r#"{{"alg":"HS256","typ":"{typ}"}}"#)), Err(AuthError::TypeNotAllowed), "{typ}");
        }
        for crit in ["null", "[]", r#"["b64"]"#, "1"] {
            assert_eq!(parse(&format!(r#"{{"alg":"HS256","crit":{crit}}}"#)), Err(AuthError::CriticalHeader), "{crit}");
        }
        for algorithm in ["none", "None", "NONE", "", "hs256", "ES512", "dir"] {
            let header = format!(r#"{{"alg":"{algorithm}"}}"#);
            assert_eq!(parse(&header), Err(AuthError::AlgorithmNotAllowed), "{algorithm}");
        }
        for header in
            ["", "{}", "[]", "null", r#"{"alg":1}"#, r#"{"alg":"HS256","alg":"RS256"}"#, r#"{"alg":"HS256"}x"#]
        {
            assert_eq!(parse(header), Err(AuthError::Malformed), "{header}");
        }
    }

    #[test]
    fn tokens_have_exactly_three_parts_of_base64url() {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
        for token in [
            String::new(),
            "..".to_owned(),
            header.clone(),
            format!("{header}.e30"),
            format!("{header}.e30.AAAA.AAAA"),
            format!("{header}.e30.AAAA.AAAA.AAAA"),
            format!("{header}.e30=.AAAA"),
            format!("{header}.e3 0.AAAA"),
            format!("{header}=.e30.AAAA"),
        ] {
            assert_eq!(Token::parse(&token).map(|_| ()), Err(AuthError::Malformed), "{token}");
        }
    }
}
