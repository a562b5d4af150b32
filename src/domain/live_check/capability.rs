//! What policies may need of a database, a store and its STS.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::{
    model::{IpScope, UploadMethod},
    policy::{ChecksumRule, PolicyDocument, Rules},
};

/// Something that may be needed and can be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreCapability {
    /// The database answers.
    Database,
    /// Its schema is this binary's.
    Schema,
    /// It takes rows.
    DatabaseWrites,
    /// Its clock is this machine's.
    DatabaseClock,
    /// The store answers and has the bucket.
    Store,
    /// Objects are written, read and removed by presigned requests.
    Put,
    /// The store's clock is this machine's.
    StoreClock,
    /// A PUT with `If-None-Match: *` replaces nothing.
    PutIfNoneMatch,
    /// A PUT has the signed length or is refused.
    PutLength,
    /// A PUT has the signed media type or is refused.
    PutType,
    /// A PUT whose bytes have another SHA-256 than the signed one is refused.
    PutChecksum,
    /// A form with the credentials that this configuration signs with.
    Form,
    /// A form whose file is too large is refused.
    FormLength,
    /// A form signed by a session of the STS.
    FormOfSession,
    /// A form signed with the service's own credentials.
    FormOfOwnCredentials,
    /// A file sent in parts.
    Multipart,
    /// Parts that come with their SHA-256.
    MultipartChecksums,
    /// A part has the signed length or is refused.
    PartLength,
    /// A part whose bytes have another SHA-256 than the signed one is refused.
    PartChecksum,
    /// Completing replaces nothing.
    MultipartIfNoneMatch,
    /// The STS gives sessions.
    Sts,
    /// A URL for this machine's network works here.
    ScopeAdmits,
    /// A URL for another network does not.
    ScopeEnforced,
    /// Nor does it with a header that claims to come from there.
    ScopeUnforgeable,
    /// A URL for one address of this machine is refused from another.
    ScopeElsewhere,
    /// Credentials for an area write there and nowhere else.
    Area,
    /// The bucket lets pages in.
    Cors,
    /// The running service sees its clients' addresses.
    Running,
}

/// What of the configuration decides who needs what.
#[derive(Debug, Clone, Copy)]
pub struct CapabilityFacts<'a> {
    /// Whether URLs are signed by sessions of an STS.
    pub has_sts: bool,
    /// The methods whose uploads are staged.
    pub staged: &'a [UploadMethod],
    /// Whether pages use the bucket.
    pub has_origins: bool,
    /// Whether the running service is to be asked.
    pub has_url: bool,
}

impl StoreCapability {
    /// How it is called in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Schema => "database.schema",
            Self::DatabaseWrites => "database.writes",
            Self::DatabaseClock => "database.clock",
            Self::Store => "store",
            Self::Put => "put",
            Self::StoreClock => "store.clock",
            Self::PutIfNoneMatch => "put.if_none_match",
            Self::PutLength => "put.length",
            Self::PutType => "put.type",
            Self::PutChecksum => "put.checksum",
            Self::Form => "form",
            Self::FormLength => "form.length",
            Self::FormOfSession => "form.by_session",
            Self::FormOfOwnCredentials => "form.by_own_credentials",
            Self::Multipart => "multipart",
            Self::MultipartChecksums => "multipart.checksums",
            Self::PartLength => "multipart.part_length",
            Self::PartChecksum => "multipart.part_checksum",
            Self::MultipartIfNoneMatch => "multipart.if_none_match",
            Self::Sts => "sts",
            Self::ScopeAdmits => "scope.admits",
            Self::ScopeEnforced => "scope.enforced",
            Self::ScopeUnforgeable => "scope.unforgeable",
            Self::ScopeElsewhere => "scope.elsewhere",
            Self::Area => "credentials.area",
            Self::Cors => "cors",
            Self::Running => "service",
        }
    }

    /// What to do where the store lacks it and somebody needs it.
    pub const fn mend(self) -> &'static str {
        match self {
            Self::Database | Self::Schema | Self::DatabaseWrites => {
                "correct database.url, or give its role what it lacks"
            }
            Self::DatabaseClock => "keep the clocks of this machine and of the database in step (NTP)",
            Self::Store | Self::Put => "correct the s3 settings, or give the credentials what they lack",
            Self::StoreClock => "keep the clocks of this machine and of the store in step (NTP)",
            Self::PutIfNoneMatch => "put \"put\" into s3.stage, or leave \"put\" out of the policies' methods",
            Self::PutLength | Self::PutType | Self::PutChecksum => {
                "leave \"put\" out of the policies' methods: the store does not hold a client to what was signed"
            }
            Self::Form | Self::FormOfSession | Self::FormOfOwnCredentials => {
                "leave \"post\" out of the policies' methods; where only sessions cannot sign forms, a deployment without [s3.sts] can have them"
            }
            Self::FormLength => "leave \"post\" out of the policies' methods: the store takes files of any size",
            Self::Multipart | Self::PartLength => "leave \"multipart\" out of the policies' methods",
            Self::MultipartChecksums => {
                "set s3.declare_part_checksums to the other value, or leave \"multipart\" out of the policies' methods"
            }
            Self::PartChecksum => "leave checksum = \"required\" or \"multipart\" out of the policies",
            Self::MultipartIfNoneMatch => "nothing: only this service completes uploads, and every key is used once",
            Self::Sts => "correct [s3.sts]",
            Self::ScopeAdmits => {
                "say with --address as whom the store sees this machine; if that is right, s3.sts.source_ip_key is wrong"
            }
            Self::ScopeEnforced | Self::ScopeElsewhere => {
                "set ip_scope = \"off\" in the policies: the store does not heed the condition in session policies"
            }
            Self::ScopeUnforgeable => {
                "make the store ignore X-Forwarded-For, or overwrite it in the proxy before the store; until then ip_scope protects nobody"
            }
            Self::Area => {
                "allow the role s3:PutObject in the bucket; if it is, the store does not heed the resource in session policies: leave \"credentials\" out of the policies' methods"
            }
            Self::Cors => "put the rules that \"presignd cors print\" prints on the bucket",
            Self::Running => "correct server.trusted_proxies, server.forwarded_header, or the proxy in front",
        }
    }

    /// The setting of a policy that asks for it, where there is one.
    pub fn setting(self) -> Option<&'static str> {
        match self.need() {
            Need::Policies(setting, _) => Some(setting),
            Need::Everything(_) | Need::Nobody => None,
        }
    }

    /// The policies that need it, in any of their periods; `everything` where it is none of their business.
    pub fn needed_by(self, document: &PolicyDocument, facts: &CapabilityFacts<'_>) -> Vec<String> {
        match self.need() {
            Need::Everything(is_needed) if is_needed(facts) => vec!["everything".to_owned()],
            Need::Policies(_, asks) => document.policies_that(|rules| asks(rules, facts)).map(str::to_owned).collect(),
            Need::Everything(_) | Need::Nobody => Vec::new(),
        }
    }

    fn need(self) -> Need {
        match self {
            Self::Database
            | Self::Schema
            | Self::DatabaseWrites
            | Self::DatabaseClock
            | Self::Store
            | Self::Put
            | Self::StoreClock => Need::Everything(|_| true),
            Self::Sts => Need::Everything(|facts| facts.has_sts),
            Self::Cors => Need::Everything(|facts| facts.has_origins),
            Self::Running => Need::Everything(|facts| facts.has_url),
            // What is staged is copied to a key that no client can write to.
            Self::PutIfNoneMatch => Need::Policies("methods", |rules, facts| {
                rules.methods.contains(&UploadMethod::Put) && !facts.staged.contains(&UploadMethod::Put)
            }),
            Self::PutLength | Self::PutType => {
                Need::Policies("methods", |rules, _| rules.methods.contains(&UploadMethod::Put))
            }
            Self::Form | Self::FormLength => {
                Need::Policies("methods", |rules, _| rules.methods.contains(&UploadMethod::Post))
            }
            Self::Multipart | Self::MultipartChecksums | Self::PartLength => {
                Need::Policies("methods", |rules, _| rules.methods.contains(&UploadMethod::Multipart))
            }
            Self::Area => Need::Policies("methods", |rules, _| rules.methods.contains(&UploadMethod::Credentials)),
            Self::PartChecksum => Need::Policies("checksum", |rules, _| {
                rules.methods.contains(&UploadMethod::Multipart) && rules.checksum == ChecksumRule::Required
            }),
            // Without an STS, downloads are held to networks by tickets, which this service compares itself.
            Self::ScopeAdmits | Self::ScopeEnforced | Self::ScopeUnforgeable | Self::ScopeElsewhere => {
                Need::Policies("ip_scope", |rules, facts| {
                    rules.ip_scope != IpScope::Off || (facts.has_sts && rules.download_ip_scope() != IpScope::Off)
                })
            }
            // The checksum of a PUT is compared again when it is confirmed, and the rest is told for information.
            Self::PutChecksum | Self::FormOfSession | Self::FormOfOwnCredentials | Self::MultipartIfNoneMatch => {
                Need::Nobody
            }
        }
    }
}

/// Who needs a capability.
enum Need {
    /// Everything that the service does, where this holds of the configuration.
    Everything(fn(&CapabilityFacts<'_>) -> bool),
    /// The policies whose rules ask for it, with this setting.
    Policies(&'static str, fn(&Rules, &CapabilityFacts<'_>) -> bool),
    Nobody,
}

impl fmt::Display for StoreCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for StoreCapability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
