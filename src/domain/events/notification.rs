//! What stores and their relays send, in all its formats.
//!
//! - S3's own, version 2.x (`Records`), as Amazon S3 sends it to SNS and SQS, and Ceph RGW, `MinIO` and `RustFS` to webhooks:
//!   <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>. Also the message that S3
//!   sends when notifications are set up (`s3:TestEvent`).
//! - Amazon `EventBridge`'s, with one event in `detail`:
//!   <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>

use std::{fmt, net::IpAddr};

use percent_encoding::percent_decode_str;
use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess},
};

/// The most records in one notification. Amazon S3 sends one; relays collect them.
pub const MAX_RECORDS: usize = 10_000;

/// What was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notification {
    /// All records, whatever they are about.
    pub received: usize,
    /// Those that tell of a new object.
    pub events: Vec<StoreEvent>,
}

/// An object was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreEvent {
    /// The bucket.
    pub bucket: String,
    /// The key as it was sent.
    sent_key: String,
    /// What it is decoded, where that is something else.
    decoded_key: Option<String>,
    /// Where the object was written from. Some stores say nothing, and AWS names a service where one of its own wrote.
    pub source_address: Option<IpAddr>,
}

/// Why a body is not a notification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotificationError {
    /// It is not JSON, or fields have other types than in any format.
    #[error("expected a storage event as JSON: {0}")]
    Unreadable(String),
    /// It is JSON in no format that is known.
    #[error("expected S3's Records, a test event of S3, or an event of Amazon EventBridge")]
    UnknownFormat,
    /// It has more records than are taken at once.
    #[error("expected at most {MAX_RECORDS} records")]
    TooManyRecords,
}

impl StoreEvent {
    fn new(bucket: String, key: String, is_encoded: bool, source_address: Option<&str>) -> Self {
        let decoded_key = if is_encoded { form_decoded(&key).filter(|decoded| *decoded != key) } else { None };
        let source_address = source_address.and_then(|address| address.parse().ok());
        Self { bucket, sent_key: key, decoded_key, source_address }
    }

    /// The keys that may be meant. S3 encodes keys in `Records`; some stores (Ceph RGW 16) do not, and then a plus sign
    /// or a percent sign is part of the key.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.decoded_key.as_deref().into_iter().chain([self.sent_key.as_str()])
    }
}

impl Notification {
    /// Reads `body`.
    ///
    /// # Errors
    /// When it has none of the formats, or too many records.
    pub fn parse(body: &[u8]) -> Result<Self, NotificationError> {
        let envelope: Envelope = serde_json::from_slice(body).map_err(|error| {
            if error.to_string().contains(TOO_MANY) {
                return NotificationError::TooManyRecords;
            }
            // Without the values: keys are file names, and nobody's business in a log.
            NotificationError::Unreadable(format!("line {}, column {}", error.line(), error.column()))
        })?;
        match envelope {
            Envelope { records: Some(records), .. } => Ok(Self {
                received: records.0.len(),
                events: records.0.into_iter().filter_map(Record::into_event).collect(),
            }),
            Envelope { detail_type: Some(detail_type), detail: Some(detail), .. } => {
                let event = (detail_type == "Object Created").then(|| detail.into_event()).flatten();
                Ok(Self { received: 1, events: event.into_iter().collect() })
            }
            Envelope { event: Some(event), .. } if event == "s3:TestEvent" => {
                Ok(Self { received: 1, ..Self::default() })
            }
            _ => Err(NotificationError::UnknownFormat),
        }
    }

    /// The same without the addresses that objects were written from.
    #[must_use]
    pub fn without_addresses(mut self) -> Self {
        for event in &mut self.events {
            event.source_address = None;
        }
        self
    }
}

/// `+` for a space and percent-encoded bytes, as in HTML forms. `None` when it is not UTF-8.
fn form_decoded(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// All formats in one, told apart by the fields that are there.
#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "Records")]
    records: Option<Records>,
    #[serde(rename = "Event")]
    event: Option<String>,
    #[serde(rename = "detail-type")]
    detail_type: Option<String>,
    detail: Option<Detail>,
}

const TOO_MANY: &str = "too many records";

/// At most [`MAX_RECORDS`]: a body of nothing but `{},` would otherwise take many times its size in memory.
struct Records(Vec<Record>);

impl<'de> Deserialize<'de> for Records {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Records;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of records")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Records, A::Error> {
                let mut records = Vec::new();
                while let Some(record) = sequence.next_element()? {
                    if records.len() == MAX_RECORDS {
                        return Err(de::Error::custom(TOO_MANY));
                    }
                    records.push(record);
                }
                Ok(Records(records))
            }
        }

        deserializer.deserialize_seq(Visitor)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    event_name: Option<String>,
    request_parameters: Option<RequestParameters>,
    s3: Option<S3>,
}

#[derive(Deserialize)]
struct RequestParameters {
    #[serde(rename = "sourceIPAddress")]
    source_ip_address: Option<String>,
}

#[derive(Deserialize)]
struct S3 {
    bucket: Bucket,
    object: Object,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
struct Object {
    key: String,
}

#[derive(Deserialize)]
struct Detail {
    // Other events of EventBridge have other details.
    bucket: Option<Bucket>,
    object: Option<Object>,
    #[serde(rename = "source-ip-address")]
    source_ip_address: Option<String>,
}

impl Record {
    fn into_event(self) -> Option<StoreEvent> {
        // Amazon S3 and Ceph write "ObjectCreated:Put", MinIO and RustFS "s3:ObjectCreated:Put".
        let name = self.event_name?;
        let is_creation = name.strip_prefix("s3:").unwrap_or(&name).starts_with("ObjectCreated:");
        let s3 = self.s3.filter(|_| is_creation)?;
        let source = self.request_parameters.and_then(|parameters| parameters.source_ip_address);
        Some(StoreEvent::new(s3.bucket.name, s3.object.key, true, source.as_deref()))
    }
}

impl Detail {
    fn into_event(self) -> Option<StoreEvent> {
        Some(StoreEvent::new(self.bucket?.name, self.object?.key, false, self.source_ip_address.as_deref()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(body: &Value) -> Result<Notification, NotificationError> {
        Notification::parse(body.to_string().as_bytes())
    }

    fn record(name: &str, key: &str) -> Value {
        json!({ "eventName": name, "s3": { "bucket": { "name": "b" }, "object": { "key": key } } })
    }

    fn keys(notification: &Notification) -> Vec<Vec<&str>> {
        notification.events.iter().map(|event| event.keys().collect()).collect()
    }

    #[test]
    fn keys_are_decoded_as_forms_are_and_kept_as_they_came() {
        let records = ["a+b%2Bc.txt", "plain", "a b+c/é&1.txt", "100%", "%ff", "%25"];
        let records: Vec<_> = records.iter().map(|key| record("ObjectCreated:Put", key)).collect();
        let notification = parse(&json!({ "Records": records })).unwrap();
        assert_eq!(
            keys(&notification),
            [
                vec!["a b+c.txt", "a+b%2Bc.txt"],
                vec!["plain"],
                vec!["a b c/é&1.txt", "a b+c/é&1.txt"],
                vec!["100%"],
                vec!["%ff"],
                vec!["%", "%25"],
            ]
        );
    }

    #[test]
    fn only_creations_are_events_and_all_records_count() {
        let names = [
            "ObjectCreated:Put",
            "s3:ObjectCreated:CompleteMultipartUpload",
            "ObjectRemoved:Delete",
            "s3:ObjectAccessed:Get",
            "ObjectCreated",
            "",
        ];
        let mut records: Vec<_> = names.iter().map(|name| record(name, name)).collect();
        records.extend([json!({}), json!({ "eventName": "ObjectCreated:Put" })]);
        let notification = parse(&json!({ "EventName": "x", "Key": "b/k", "Records": records })).unwrap();
        assert_eq!(notification.received, 8);
        assert_eq!(notification.events.len(), 2);
        assert_eq!(parse(&json!({ "Records": [] })).unwrap(), Notification::default());
    }

    #[test]
    fn test_events_and_other_details_are_received_and_nothing_more() {
        let received = Notification { received: 1, events: Vec::new() };
        let test = json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b", "RequestId": "r" });
        assert_eq!(parse(&test).unwrap(), received);
        let deleted = json!({ "detail-type": "Object Deleted",
            "detail": { "bucket": { "name": "b" }, "object": { "key": "k" } } });
        assert_eq!(parse(&deleted).unwrap(), received);
        assert_eq!(
            parse(&json!({ "detail-type": "EC2 Instance State-change Notification",
            "detail": { "instance-id": "i", "state": "running" } }))
            .unwrap(),
            received
        );
    }

    #[test]
    fn keys_of_eventbridge_are_not_encoded() {
        let created = json!({ "detail-type": "Object Created", "source": "aws.s3", "detail": {
            "bucket": { "name": "b" }, "object": { "key": "a+b%20c", "size": 5, "sequencer": "00" },
            "source-ip-address": "203.0.113.7", "reason": "PutObject" } });
        let notification = parse(&created).unwrap();
        assert_eq!(keys(&notification), [["a+b%20c"]]);
        assert_eq!(notification.events[0].source_address, Some([203, 0, 113, 7].into()));
    }

    #[test]
    fn addresses_that_are_none_are_left_out() {
        for (sent, address) in [
            (json!("203.0.113.7"), Some([203, 0, 113, 7].into())),
            (json!("2001:db8::1"), Some("2001:db8::1".parse().unwrap())),
            (json!(""), None),
            (json!("s3.amazonaws.com"), None),
            (Value::Null, None),
        ] {
            let mut record = record("ObjectCreated:Put", "k");
            record["requestParameters"] = json!({ "sourceIPAddress": sent });
            assert_eq!(parse(&json!({ "Records": [record] })).unwrap().events[0].source_address, address, "{sent}");
        }
    }

    #[test]
    fn what_is_no_notification_is_refused() {
        assert_eq!(parse(&json!({})).unwrap_err(), NotificationError::UnknownFormat);
        assert_eq!(parse(&json!({ "Event": "s3:Other" })).unwrap_err(), NotificationError::UnknownFormat);
        for body in ["", "[]", "5", "{", "{\"Records\":5}", "{\"Records\":[5]}", "{\"Records\":[{\"s3\":{}}]}"] {
            let error = Notification::parse(body.as_bytes()).unwrap_err();
            assert!(matches!(error, NotificationError::Unreadable(_)), "{body}: {error}");
        }
    }

    #[test]
    fn records_are_bounded() {
        let many = |count| Notification::parse(format!("{{\"Records\":[{}]}}", vec!["{}"; count].join(",")).as_bytes());
        assert_eq!(many(MAX_RECORDS).unwrap().received, MAX_RECORDS);
        assert_eq!(many(MAX_RECORDS + 1).unwrap_err(), NotificationError::TooManyRecords);
    }
}
