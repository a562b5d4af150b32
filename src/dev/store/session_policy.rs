//! Inline session policies: the part of IAM's language that scopes a session to keys and client networks.
//!
//! What this module does not evaluate it refuses when the policy is handed in, so that no restriction is ever accepted
//! and then ignored. <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html>

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::Deserialize;

/// A policy is wrong, or says more than this store evaluates. The text may be shown to who sent the policy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct MalformedPolicy(String);

/// A session policy that can be evaluated in full.
#[derive(Debug)]
pub(super) struct SessionPolicy {
    statements: Vec<Statement>,
}

#[derive(Debug)]
struct Statement {
    effect: Effect,
    actions: Vec<String>,
    resources: Vec<String>,
    source_ip: Vec<SourceIp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Effect {
    Allow,
    Deny,
}

/// A condition on `aws:SourceIp`.
#[derive(Debug)]
struct SourceIp {
    /// `IpAddress`, or `NotIpAddress` when `false`.
    inside: bool,
    networks: Vec<IpNet>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Document {
    #[serde(default)]
    version: Option<String>,
    #[serde(default, rename = "Id")]
    _id: Option<String>,
    statement: OneOrMany<StatementText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct StatementText {
    #[serde(default, rename = "Sid")]
    _sid: Option<String>,
    effect: Effect,
    action: OneOrMany<String>,
    resource: OneOrMany<String>,
    #[serde(default)]
    condition: BTreeMap<String, BTreeMap<String, OneOrMany<String>>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

impl SessionPolicy {
    pub(super) fn parse(text: &str) -> Result<Self, MalformedPolicy> {
        let document: Document = serde_json::from_str(text).map_err(|error| MalformedPolicy(error.to_string()))?;
        if !matches!(document.version.as_deref(), None | Some("2012-10-17" | "2008-10-17")) {
            return Err(MalformedPolicy("Version must be 2012-10-17".to_owned()));
        }
        let statements = document.statement.into_vec().into_iter().map(Statement::parse).collect::<Result<_, _>>()?;
        Ok(Self { statements })
    }

    /// Whether a caller at `peer` may do `action` (as `s3:GetObject`) to `resource` (an ARN): some statement allows it
    /// and none denies it.
    pub(super) fn allows(&self, action: &str, resource: &str, peer: IpAddr) -> bool {
        let mut allowed = false;
        for statement in self.statements.iter().filter(|statement| statement.applies(action, resource, peer)) {
            match statement.effect {
                Effect::Deny => return false,
                Effect::Allow => allowed = true,
            }
        }
        allowed
    }
}

impl Statement {
    fn parse(text: StatementText) -> Result<Self, MalformedPolicy> {
        let mut source_ip = Vec::new();
        for (operator, keys) in text.condition {
            let inside = match operator.as_str() {
                "IpAddress" => true,
                "NotIpAddress" => false,
                _ => return Err(MalformedPolicy(format!("condition operator {operator} is not supported"))),
            };
            for (key, networks) in keys {
                if !key.eq_ignore_ascii_case("aws:SourceIp") {
                    return Err(MalformedPolicy(format!("condition key {key} is not supported")));
                }
                let networks =
                    networks.into_vec().iter().map(|network| parse_network(network)).collect::<Result<_, _>>()?;
                source_ip.push(SourceIp { inside, networks });
            }
        }
        Ok(Self {
            effect: text.effect,
            actions: text.action.into_vec().iter().map(|action| action.to_ascii_lowercase()).collect(),
            resources: text.resource.into_vec(),
            source_ip,
        })
    }

    fn applies(&self, action: &str, resource: &str, peer: IpAddr) -> bool {
        // IAM compares actions without regard to case, and ARNs with.
        let action = action.to_ascii_lowercase();
        self.actions.iter().any(|pattern| matches(pattern, &action))
            && self.resources.iter().any(|pattern| matches(pattern, resource))
            && self
                .source_ip
                .iter()
                .all(|condition| condition.networks.iter().any(|network| network.contains(&peer)) == condition.inside)
    }
}

/// A network or a bare address. An IPv4-mapped one is its IPv4 network, as peers are compared in that form.
fn parse_network(text: &str) -> Result<IpNet, MalformedPolicy> {
    let network = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| MalformedPolicy(format!("{text:?} is not an IP address or CIDR block")))?;
    let mapped = match network {
        IpNet::V6(v6) => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    Ok(mapped.and_then(|(address, prefix)| IpNet::new(address.into(), prefix).ok()).unwrap_or(network))
}

/// Whether `text` is what `pattern` says, `*` standing for any text and `?` for one character.
fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // Where to go on when what follows the last `*` does not fit: one character later.
    let mut retry = None;
    loop {
        let before = text.clone();
        match (pattern.next(), text.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                retry = Some((pattern.clone(), before.clone()));
                text = before;
            }
            (Some('?'), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => {
                let Some((after_star, mut from)) = retry.take() else { return false };
                if from.next().is_none() {
                    return false;
                }
                retry = Some((after_star.clone(), from.clone()));
                (pattern, text) = (after_star, from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(effect: &str, condition: &str) -> String {
        format!(
            r#"{{"Effect":"{effect}","Action":["s3:PutObject","s3:Get*"],"Resource":"arn:aws:s3:::docs/in/*"{condition}}}"#
        )
    }

    fn allows(statements: &str, action: &str, resource: &str, peer: &str) -> bool {
        SessionPolicy::parse(&format!(r#"{{"Version":"2012-10-17","Statement":{statements}}}"#)).unwrap().allows(
            action,
            resource,
            peer.parse().unwrap(),
        )
    }

    #[test]
    fn stars_and_question_marks_match() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abbcd", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1c", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a*", "a", true),
            ("", "a", false),
            ("*a", "aaab", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn only_named_actions_and_resources_are_allowed() {
        let allow = statement("Allow", "");
        let key = "arn:aws:s3:::docs/in/a";
        assert!(allows(&allow, "s3:PutObject", key, "127.0.0.1"));
        assert!(allows(&allow, "s3:GetObject", key, "127.0.0.1"));
        assert!(!allows(&allow, "s3:DeleteObject", key, "127.0.0.1"));
        assert!(!allows(&allow, "s3:PutObject", "arn:aws:s3:::docs/out/a", "127.0.0.1"));
        assert!(!allows("[]", "s3:PutObject", key, "127.0.0.1"));
    }

    #[test]
    fn a_matching_deny_wins() {
        let both = format!(
            "[{},{}]",
            statement("Allow", ""),
            statement("Deny", r#","Condition":{"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#)
        );
        let key = "arn:aws:s3:::docs/in/a";
        assert!(allows(&both, "s3:PutObject", key, "10.1.2.3"));
        assert!(!allows(&both, "s3:PutObject", key, "11.1.2.3"));
    }

    #[test]
    fn source_ip_takes_lists_bare_addresses_and_mapped_networks() {
        let inside = |networks: &str, peer: &str| {
            let condition = format!(r#","Condition":{{"IpAddress":{{"aws:sourceip":{networks}}}}}"#);
            allows(&statement("Allow", &condition), "s3:PutObject", "arn:aws:s3:::docs/in/a", peer)
        };
        assert!(inside(r#"["192.0.2.0/29","2001:db8::/64"]"#, "192.0.2.7"));
        assert!(inside(r#"["192.0.2.0/29","2001:db8::/64"]"#, "2001:db8::7"));
        assert!(!inside(r#"["192.0.2.0/29","2001:db8::/64"]"#, "192.0.2.8"));
        assert!(inside(r#""192.0.2.1""#, "192.0.2.1"));
        assert!(!inside(r#""192.0.2.1""#, "192.0.2.2"));
        assert!(inside(r#""::ffff:192.0.2.0/120""#, "192.0.2.9"));
        assert!(!inside(r#""::ffff:192.0.2.0/120""#, "192.0.3.9"));
    }

    #[test]
    fn what_is_not_evaluated_is_refused() {
        for bad in [
            "",
            "{}",
            r#"{"Statement":[{"Effect":"Maybe","Action":"s3:*","Resource":"*"}]}"#,
            r#"{"Statement":[{"Effect":"Allow","NotAction":"s3:*","Resource":"*"}]}"#,
            r#"{"Statement":[{"Effect":"Allow","Action":"s3:*"}]}"#,
            r#"{"Version":"1","Statement":[]}"#,
            r#"{"Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*","Condition":{"StringEquals":{"a":"b"}}}]}"#,
            r#"{"Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*","Condition":{"IpAddress":{"aws:VpcSourceIp":"10.0.0.0/8"}}}]}"#,
            r#"{"Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/40"}}}]}"#,
        ] {
            assert!(SessionPolicy::parse(bad).is_err(), "{bad}");
        }
    }
}
