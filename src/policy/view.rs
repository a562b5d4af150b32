//! What `GET /api/v1/policies` shows.

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use super::{ChecksumRule, InspectionRule, PolicyDocument, Readers, Rules, SniffRule};
use crate::model::{ByteRate, Delivery, IpScope, MediaRange, UploadMethod};

/// The policies in force at one instant, and what is planned for them.
///
/// The keys are nested as in the file. Times are whole seconds and sizes are bytes, the units of the API's requests.
#[derive(Debug, Serialize)]
pub struct PoliciesView<'a> {
    version: &'a str,
    policies: Vec<PolicyView<'a>>,
}

#[derive(Debug, Serialize)]
struct PolicyView<'a> {
    name: &'a str,
    #[serde(flatten)]
    rules: RulesView<'a>,
    schedule: Vec<PlannedView<'a>>,
}

#[derive(Debug, Serialize)]
struct PlannedView<'a> {
    from: DateTime<Utc>,
    #[serde(flatten)]
    rules: RulesView<'a>,
}

#[derive(Debug, Serialize)]
struct RulesView<'a> {
    methods: &'a [UploadMethod],
    upload: UploadRulesView,
    download: DownloadRulesView,
    min_size: u64,
    max_size: u64,
    content_types: &'a [MediaRange],
    key: String,
    readers: Readers,
    #[serde(serialize_with = "serialize_scope")]
    ip_scope: IpScope,
    checksum: ChecksumRule,
    delivery: &'a [Delivery],
    confirm: ConfirmView,
    sniff: SniffRule,
    inspection: InspectionRule,
}

#[derive(Debug, Serialize)]
struct UploadRulesView {
    expires_in: u64,
    #[serde(serialize_with = "serialize_rate")]
    min_rate: Option<ByteRate>,
    max_expires_in: u64,
    renew_within: u64,
    multipart_above: u64,
    part_size: u64,
}

#[derive(Debug, Serialize)]
struct DownloadRulesView {
    expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    uses: Option<u16>,
    #[serde(serialize_with = "serialize_scope")]
    ip_scope: IpScope,
}

#[derive(Debug, Serialize)]
struct ConfirmView {
    grace: u64,
}

impl PolicyDocument {
    /// The policies in force at `now` and the changes after it, each with all rules that hold from then on.
    pub fn in_force(&self, now: DateTime<Utc>) -> PoliciesView<'_> {
        let policies = self.timelines().iter().map(|(name, timeline)| PolicyView {
            name,
            rules: RulesView::of(timeline.at(now)),
            schedule: timeline
                .changes_after(now)
                .map(|(from, rules)| PlannedView { from, rules: RulesView::of(rules) })
                .collect(),
        });
        PoliciesView { version: self.version(), policies: policies.collect() }
    }
}

impl<'a> RulesView<'a> {
    fn of(rules: &'a Rules) -> Self {
        // Taken apart in full, so that no rule is left out.
        let Rules {
            methods,
            upload_expires_in,
            upload_min_rate,
            upload_max_expires_in,
            upload_renew_within,
            multipart_above,
            part_size,
            download_expires_in,
            download_uses,
            download_ip_scope: _,
            min_size,
            max_size,
            content_types,
            key,
            readers,
            ip_scope,
            checksum,
            delivery,
            confirm_grace,
            sniff,
            inspection,
        } = rules;
        Self {
            methods,
            upload: UploadRulesView {
                expires_in: upload_expires_in.as_secs(),
                min_rate: *upload_min_rate,
                max_expires_in: upload_max_expires_in.as_secs(),
                renew_within: upload_renew_within.as_secs(),
                multipart_above: multipart_above.bytes(),
                part_size: part_size.bytes(),
            },
            download: DownloadRulesView {
                expires_in: download_expires_in.as_secs(),
                uses: *download_uses,
                // In force, also where it is left to the other one.
                ip_scope: rules.download_ip_scope(),
            },
            min_size: min_size.bytes(),
            max_size: max_size.bytes(),
            content_types,
            key: key.to_string(),
            readers: *readers,
            ip_scope: *ip_scope,
            checksum: *checksum,
            delivery,
            confirm: ConfirmView { grace: confirm_grace.as_secs() },
            sniff: *sniff,
            inspection: *inspection,
        }
    }
}

/// `"off"` as the file spells it, where the model's own form is null.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn serialize_scope<S: Serializer>(scope: &IpScope, serializer: S) -> Result<S::Ok, S::Error> {
    match scope {
        IpScope::Off => serializer.serialize_str("off"),
        IpScope::Prefix { .. } => scope.serialize(serializer),
    }
}

/// `"off"` as the file spells it, or bytes a second.
#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn serialize_rate<S: Serializer>(rate: &Option<ByteRate>, serializer: S) -> Result<S::Ok, S::Error> {
    match rate {
        None => serializer.serialize_str("off"),
        Some(rate) => serializer.serialize_u64(rate.bytes_per_second()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shows_the_rules_in_force_and_what_is_still_to_come() {
        let document = PolicyDocument::parse(
            r#"
[policy.default]
[[policy.default.schedule]]
from = 2027-01-01T00:00:00Z
ip_scope = "off"
[[policy.default.schedule]]
from = 2027-02-01T00:00:00Z
upload.expires_in = "2m"
upload.min_rate = "64KiB/s"
"#,
        )
        .unwrap();
        let rules = json!({
            "methods": ["post", "put"],
            "upload": {
                "expires_in": 300,
                "min_rate": "off",
                "max_expires_in": 604_800,
                "renew_within": 604_800,
                "multipart_above": 104_857_600,
                "part_size": 8_388_608,
            },
            "download": {"expires_in": 60, "ip_scope": "off"},
            "min_size": 0,
            "max_size": 104_857_600,
            "content_types": ["*/*"],
            "key": "uploads/{yyyy}/{mm}/{id}-{name}",
            "readers": "owner",
            "ip_scope": "off",
            "checksum": "optional",
            "delivery": ["url"],
            "confirm": {"grace": 3600},
            "sniff": "warn",
            "inspection": "off",
        });
        let mut planned = rules.clone();
        planned["from"] = json!("2027-02-01T00:00:00Z");
        planned["upload"]["expires_in"] = json!(120);
        planned["upload"]["min_rate"] = json!(65_536);
        let mut policy = rules;
        policy["name"] = json!("default");
        policy["schedule"] = json!([planned]);
        let view = |now: &str| serde_json::to_value(document.in_force(now.parse().unwrap())).unwrap();
        assert_eq!(view("2027-01-01T00:00:00Z"), json!({"version": document.version(), "policies": [policy]}));
        let before = view("2026-12-31T23:59:59Z");
        assert_eq!(before["policies"][0]["ip_scope"], json!({"v4": 32, "v6": 64}));
        assert_eq!(before["policies"][0]["schedule"].as_array().unwrap().len(), 2);
    }
}
