//! Where uploads are stored: a key with placeholders.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use aws_lc_rs::digest::{SHA256, digest};
use chrono::{DateTime, Datelike as _, Utc};

use crate::model::{IntentId, Invalid, ObjectKey, Principal, StagingArea, file_name::MAX_SLUG, object_key::STAGING};

/// The longest segment made of a tenant or a user, in bytes; longer ones are hashed.
const MAX_SEGMENT: usize = 128;

/// An object key with placeholders, such as `uploads/{yyyy}/{mm}/{id}-{name}`.
///
/// | placeholder | becomes |
/// |---|---|
/// | `{yyyy}` `{mm}` `{dd}` | the UTC date of the issue |
/// | `{id}` | the intent's id, 32 hexadecimal digits; required, because it makes every key unique |
/// | `{name}` | the slug of the file's name |
/// | `{tenant}` `{user}` | the principal's tenant and subject, escaped |
///
/// Tenants and users are whole segments, so that one tenant's keys share a prefix with no other tenant's. In them,
/// letters, digits, `-`, `_` and dots that are not first stay; every other byte becomes `~` and two hexadecimal
/// digits; the empty one is `~`, and what would be longer than 128 bytes is `~~` and its SHA-256. Different values
/// hence never share a segment, and none is `.`, `..` or percent-encoded. The issuer is not part of it: where two
/// issuers name the same tenant or subject, only `{id}` tells their keys apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTemplate {
    pieces: Vec<Piece>,
    /// Everything before the first piece that varies.
    upload_to: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Placeholder(Placeholder),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    Year,
    Month,
    Day,
    Id,
    Name,
    Tenant,
    User,
}

impl Placeholder {
    const ALL: [Self; 7] = [Self::Year, Self::Month, Self::Day, Self::Id, Self::Name, Self::Tenant, Self::User];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Year => "{yyyy}",
            Self::Month => "{mm}",
            Self::Day => "{dd}",
            Self::Id => "{id}",
            Self::Name => "{name}",
            Self::Tenant => "{tenant}",
            Self::User => "{user}",
        }
    }

    const fn max_len(self) -> usize {
        match self {
            Self::Year => 4,
            Self::Month | Self::Day => 2,
            Self::Id => 32,
            Self::Name => MAX_SLUG,
            Self::Tenant | Self::User => MAX_SEGMENT,
        }
    }
}

impl KeyTemplate {
    /// The key for the upload `id`, issued at `now` to `principal`, of a file whose name has this `slug`.
    ///
    /// # Errors
    /// When the template holds `{tenant}` and the principal has none, and when `slug` is not what
    /// [`crate::model::FileName::slug`] makes and the key would not be valid.
    pub fn render(
        &self,
        id: IntentId,
        now: DateTime<Utc>,
        principal: &Principal,
        slug: &str,
    ) -> Result<ObjectKey, Invalid> {
        let mut key = String::with_capacity(128);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => key.push_str(text),
                Piece::Placeholder(Placeholder::Year) => push_padded(&mut key, 4, now.year()),
                Piece::Placeholder(Placeholder::Month) => push_padded(&mut key, 2, now.month()),
                Piece::Placeholder(Placeholder::Day) => push_padded(&mut key, 2, now.day()),
                Piece::Placeholder(Placeholder::Id) => key.push_str(&id.hex()),
                Piece::Placeholder(Placeholder::Name) => key.push_str(slug),
                Piece::Placeholder(Placeholder::Tenant) => match &principal.tenant {
                    Some(tenant) => key.push_str(&escape(tenant)),
                    None => return Err(Invalid::new("must be asked for with a token that names a tenant")),
                },
                Piece::Placeholder(Placeholder::User) => key.push_str(&escape(&principal.subject)),
            }
        }
        if let Some(rest) = key.strip_prefix(STAGING) {
            // A tenant, a user or a file may have the staging area's name. Its object would count as unverified, and its
            // copy would lie outside of its segment. No letter is ever escaped otherwise, so this is nobody else's key.
            key = ["~73", STAGING.get(1..).unwrap_or_default(), rest].concat();
        }
        ObjectKey::parse(key)
    }

    /// Whether only users whose token names a tenant have a key.
    pub fn needs_tenant(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Placeholder(Placeholder::Tenant)))
    }

    /// The folder that all keys share: what precedes the first placeholder, up to and without its last `/`; may be
    /// empty.
    pub fn upload_to(&self) -> &str {
        &self.upload_to
    }

    fn of(pieces: Vec<Piece>) -> Self {
        let upload_to = match pieces.first() {
            Some(Piece::Text(text)) => text.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned(),
            _ => String::new(),
        };
        Self { pieces, upload_to }
    }
}

impl Default for KeyTemplate {
    /// `uploads/{yyyy}/{mm}/{id}-{name}`
    fn default() -> Self {
        let text = |text: &str| Piece::Text(text.to_owned());
        let placeholder = Piece::Placeholder;
        Self::of(vec![
            text("uploads/"),
            placeholder(Placeholder::Year),
            text("/"),
            placeholder(Placeholder::Month),
            text("/"),
            placeholder(Placeholder::Id),
            text("-"),
            placeholder(Placeholder::Name),
        ])
    }
}

impl FromStr for KeyTemplate {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let pieces = pieces(text)?;
        for placeholder in [Placeholder::Tenant, Placeholder::User] {
            // Beside anything else "a-b" + "c" and "a" + "b-c" would meet.
            if text.split('/').any(|segment| segment.contains(placeholder.as_str()) && segment != placeholder.as_str())
            {
                return Err(Invalid::new(format!("must have {} alone between slashes", placeholder.as_str())));
            }
        }
        if !pieces.contains(&Piece::Placeholder(Placeholder::Id)) {
            return Err(Invalid::new("must hold {id}, which makes every key unique"));
        }
        // No placeholder is ever empty or only dots, so the longest key is valid exactly when every key is.
        let longest = pieces.iter().fold(String::new(), |mut key, piece| {
            match piece {
                Piece::Text(text) => key.push_str(text),
                Piece::Placeholder(placeholder) => key.extend(std::iter::repeat_n('x', placeholder.max_len())),
            }
            key
        });
        let longest = ObjectKey::parse(longest).map_err(|error| Invalid::new(format!("makes keys that {error}")))?;
        if longest.is_staged() {
            return Err(Invalid::new(format!("must not start with \"{STAGING}\", which is for unverified uploads")));
        }
        longest
            .staged_in(StagingArea::from_digest([0; 16]))
            .map_err(|_| Invalid::new("makes keys that leave no room for a staged copy's"))?;
        Ok(Self::of(pieces))
    }
}

impl fmt::Display for KeyTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Placeholder(placeholder) => f.write_str(placeholder.as_str()),
        })
    }
}

fn pieces(template: &str) -> Result<Vec<Piece>, Invalid> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        if rest.starts_with('{') {
            let placeholder = Placeholder::ALL.into_iter().find(|placeholder| rest.starts_with(placeholder.as_str()));
            let Some(placeholder) = placeholder else {
                let known = Placeholder::ALL.map(Placeholder::as_str).join(" ");
                return Err(Invalid::new(format!("must hold no placeholders other than {known}")));
            };
            pieces.push(Piece::Placeholder(placeholder));
            rest = rest.strip_prefix(placeholder.as_str()).unwrap_or_default();
        } else {
            let (text, after) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
            // Nothing that a URL must escape; with "%", a file name could complete "%2" to a dot segment.
            if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.=".contains(&b)) {
                return Err(Invalid::new("must hold only letters, digits, / - _ . = and placeholders in braces"));
            }
            pieces.push(Piece::Text(text.to_owned()));
            rest = after;
        }
    }
    Ok(pieces)
}

fn push_padded(key: &mut String, digits: usize, number: impl fmt::Display) {
    // Writing to a String cannot fail.
    let _ = write!(key, "{number:0digits$}");
}

fn escape(value: &str) -> String {
    if value.is_empty() {
        return "~".to_owned();
    }
    let mut segment = String::with_capacity(value.len());
    for (at, byte) in value.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || (byte == b'.' && at > 0) {
            segment.push(char::from(byte));
        } else {
            segment.push('~');
            segment.push_str(&hex::encode([byte]));
        }
        if segment.len() > MAX_SEGMENT {
            return format!("~~{}", hex::encode(digest(&SHA256, value.as_bytes())));
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::FileName;

    fn now() -> DateTime<Utc> {
        "2026-03-04T05:06:07Z".parse().unwrap()
    }

    fn id() -> IntentId {
        "0198c0de-0000-7000-8000-00000000abcd".parse().unwrap()
    }

    fn principal(tenant: Option<&str>, subject: &str) -> Principal {
        Principal {
            issuer: "https://issuer.example".to_owned(),
            subject: subject.to_owned(),
            tenant: tenant.map(str::to_owned),
            can_upload: true,
            can_download: true,
            can_administer: false,
            authenticated_until: now(),
        }
    }

    fn render(template: &str, tenant: Option<&str>, subject: &str) -> String {
        let template: KeyTemplate = template.parse().unwrap();
        template.render(id(), now(), &principal(tenant, subject), "a.pdf").unwrap().as_str().to_owned()
    }

    #[test]
    fn placeholders_become_date_id_name_tenant_and_user() {
        let rendered = render("in/{tenant}/{user}/{yyyy}/{mm}/{dd}/{id}-{name}", Some("acme"), "alice");
        assert_eq!(rendered, "in/acme/alice/2026/03/04/0198c0de00007000800000000000abcd-a.pdf");
    }

    #[test]
    fn default_is_what_its_text_parses_to() {
        let parsed: KeyTemplate = "uploads/{yyyy}/{mm}/{id}-{name}".parse().unwrap();
        assert_eq!(KeyTemplate::default(), parsed);
        assert_eq!(parsed.to_string(), "uploads/{yyyy}/{mm}/{id}-{name}");
    }

    #[test]
    fn upload_to_is_the_folder_before_the_first_placeholder() {
        for (template, folder) in [
            ("uploads/{yyyy}/{id}", "uploads"),
            ("a/b/c-{id}", "a/b"),
            ("{tenant}/{id}", ""),
            ("x-{id}", ""),
            ("{id}/fixed/name", ""),
        ] {
            assert_eq!(template.parse::<KeyTemplate>().unwrap().upload_to(), folder, "{template}");
        }
    }

    #[test]
    fn hostile_tenants_and_users_stay_in_one_segment() {
        for (value, segment) in [
            ("../x", "~2e.~2fx"),
            ("..", "~2e."),
            (".", "~2e"),
            ("", "~"),
            ("~", "~7e"),
            ("~~", "~7e~7e"),
            ("%2e%2e", "~252e~252e"),
            ("a/b/c", "a~2fb~2fc"),
            ("a\\b", "a~5cb"),
            ("a\0b", "a~00b"),
            ("auth0|5f7c", "auth0~7c5f7c"),
            ("alice@example.com", "alice~40example.com"),
            ("Ünï", "~c3~9cn~c3~af"),
            ("{id}", "~7bid~7d"),
        ] {
            let rendered = render("t/{tenant}/u/{user}/{id}", Some(value), value);
            assert_eq!(rendered, format!("t/{segment}/u/{segment}/{}", id().hex()), "{value:?}");
        }
    }

    #[test]
    fn nobody_has_the_staging_areas_name() {
        let (id, staging) = (id().hex(), Some("staging"));
        assert_eq!(render("{tenant}/{id}", staging, "x"), format!("~73taging/{id}"));
        assert_eq!(render("{user}/{tenant}/{id}", staging, "staging"), format!("~73taging/staging/{id}"));
        assert_eq!(render("{tenant}/{id}", Some("~73taging"), "x"), format!("~7e73taging/{id}"));
        assert_eq!(render("{tenant}/{id}", Some("stagings"), "x"), format!("stagings/{id}"));
        let named: KeyTemplate = "{name}/{id}".parse().unwrap();
        let key = named.render(IntentId::at(now()), now(), &principal(None, "x"), "staging").unwrap();
        assert!(!key.is_staged(), "{key}");
    }

    #[test]
    fn long_tenants_are_hashed_and_still_differ() {
        let kept = "k".repeat(MAX_SEGMENT);
        assert_eq!(escape(&kept), kept);
        let (one, other) = (escape(&format!("{kept}1")), escape(&format!("{kept}2")));
        assert_ne!(one, other);
        assert_eq!(one.len(), 66);
        assert_eq!(escape(&"/".repeat(100_000)).len(), 66);
    }

    #[test]
    fn a_tenant_folder_needs_a_tenant() {
        let template: KeyTemplate = "{tenant}/{id}".parse().unwrap();
        let error = template.render(id(), now(), &principal(None, "alice"), "a.pdf").unwrap_err();
        assert_eq!(error.rule, "must be asked for with a token that names a tenant");
    }

    #[test]
    fn a_slug_that_is_none_is_refused() {
        let template: KeyTemplate = "u/{id}/{name}".parse().unwrap();
        for slug in ["", "..", "a/../b", "a\0b"] {
            assert!(template.render(id(), now(), &principal(None, "alice"), slug).is_err(), "{slug:?}");
        }
    }

    #[test]
    fn templates_that_could_make_bad_keys_are_refused() {
        let long = format!("{}/{{id}}", "x".repeat(1000));
        for (template, rule) in [
            ("", "must hold {id}"),
            ("uploads/{name}", "must hold {id}"),
            ("uploads/{ID}", "must hold no placeholders other than {yyyy} {mm} {dd} {id} {name} {tenant} {user}"),
            ("uploads/{id", "must hold no placeholders other than"),
            ("uploads/{{id}}", "must hold no placeholders other than"),
            ("uploads/id}", "must hold only letters"),
            ("up loads/{id}", "must hold only letters"),
            ("%2{name}/{id}", "must hold only letters"),
            ("é/{id}", "must hold only letters"),
            ("a\\{id}", "must hold only letters"),
            ("{tenant}-{user}/{id}", "must have {tenant} alone between slashes"),
            ("u-{user}/{id}", "must have {user} alone between slashes"),
            ("{user}{user}/{id}", "must have {user} alone between slashes"),
            ("/{id}", "makes keys that must not start or end with \"/\""),
            ("{id}/", "makes keys that must not start or end with \"/\""),
            ("a//{id}", "makes keys that must not start or end with \"/\""),
            ("a/../{id}", "makes keys that must not start or end with \"/\""),
            (&long, "makes keys that must be 1 to 1024 bytes"),
        ] {
            let error = template.parse::<KeyTemplate>().unwrap_err();
            assert!(error.rule.starts_with(rule), "{template:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_key_is_valid_and_inside_its_folder(
            tenant in "\\PC{0,200}",
            user in prop::collection::vec(any::<char>(), 0..200),
            name in "\\PC{1,255}",
        ) {
            let Ok(name) = FileName::parse(&name) else { return Ok(()) };
            let template: KeyTemplate = "in/box/{tenant}/{user}/{dd}.{name}/{name}{id}".parse().unwrap();
            let principal = principal(Some(&tenant), &user.into_iter().collect::<String>());
            let key = template.render(id(), now(), &principal, &name.slug()).unwrap();
            prop_assert!(key.as_str().starts_with("in/box/"));
            prop_assert_eq!(key.as_str().split('/').count(), 6);
            prop_assert!(key.as_str().is_ascii());
        }

        #[test]
        fn distinct_tenants_never_share_a_segment(one in "[a.~/%é0-9]{0,6}", other in "[a.~/%é0-9]{0,6}") {
            prop_assert_eq!(one == other, escape(&one) == escape(&other), "{:?} {:?}", one, other);
        }
    }
}
