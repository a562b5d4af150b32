//! The life of an upload.

use std::{fmt, str::FromStr, time::Duration};

use chrono::{DateTime, Datelike as _, Months, NaiveDate, NaiveTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::{Uuid, Variant};

use super::Invalid;

/// The most ids that are looked for in one key. No key has more than one unless somebody made it so.
pub const MAX_IDS_IN_KEY: usize = 16;

/// The longest life of a signature
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>, `X-Amz-Expires`).
pub const MAX_SIGNATURE_LIFE: Duration = Duration::from_hours(7 * 24);

/// Identifies an upload or download intent: a UUID version 7 (RFC 9562), so that ids sort by time of issue and the
/// tables can be partitioned by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct IntentId(Uuid);

impl IntentId {
    /// A new id that carries `now`. Ids made within one millisecond by one thread still ascend, and those made after the
    /// clock was put back by less than a second.
    pub fn at(now: DateTime<Utc>) -> Self {
        thread_local! {
            static CONTEXT: uuid::ContextV7 = const { uuid::ContextV7::new() };
        }
        let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
        let timestamp =
            CONTEXT.with(|context| uuid::Timestamp::from_unix(context, seconds, now.timestamp_subsec_nanos()));
        let id = Self(Uuid::new_v7(timestamp));
        // The context goes on from the latest time that it has seen. One that was wrong by a day would be in all ids for a
        // day, and so would rows be in the wrong month and the wrong place of an export.
        if id >= Self::lowest_at(now + TimeDelta::seconds(1)) { Self::exactly_at(now) } else { id }
    }

    /// A new id that carries `at` and nothing of ids made before it: for what is put in order by the times that it tells,
    /// whichever thread makes it. Ids of one millisecond come in any order.
    pub fn exactly_at(at: DateTime<Utc>) -> Self {
        let seconds = u64::try_from(at.timestamp()).unwrap_or_default();
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, at.timestamp_subsec_nanos())))
    }

    /// What no id of `at` or later is below, and every earlier one is: 48 bits of milliseconds, and zeros. No id that is
    /// given out.
    pub fn lowest_at(at: DateTime<Utc>) -> Self {
        Self(Uuid::from_u128(u128::try_from(at.timestamp_millis()).unwrap_or_default() << 80))
    }

    /// All ids of the month that `day` is in: from the lowest of them to below that of the next month. `None` at the end
    /// of time.
    pub fn month_of(day: NaiveDate) -> Option<(Self, Self)> {
        let first = day.with_day(1)?;
        let lowest = |day: NaiveDate| Self::lowest_at(day.and_time(NaiveTime::MIN).and_utc());
        Some((lowest(first), lowest(first.checked_add_months(Months::new(1))?)))
    }

    /// The id read back from a row.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The UUID.
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    /// 32 lower-case hexadecimal digits, the form used in object keys.
    pub fn hex(self) -> String {
        self.0.simple().to_string()
    }

    /// The time of issue that it carries, in whole milliseconds.
    pub fn issued_at(self) -> Option<DateTime<Utc>> {
        let (seconds, nanoseconds) = self.0.get_timestamp()?.to_unix();
        DateTime::from_timestamp(seconds.try_into().ok()?, nanoseconds)
    }

    /// Every id whose [`IntentId::hex`] is somewhere in `key`, from left to right, at most [`MAX_IDS_IN_KEY`]. Which of
    /// them is an upload's only the upload tells: names, tenants and users may look like ids as well.
    pub fn all_in(key: &str) -> Vec<Self> {
        let is_hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        let mut ids = Vec::new();
        for window in key.as_bytes().windows(32) {
            // First, because a listing has millions of keys, and this rules out nearly all of their windows.
            let may_be_version_7 = window.get(12) == Some(&b'7');
            if may_be_version_7
                && window.iter().all(is_hex)
                && let Some(id) = Uuid::try_parse_ascii(window).ok().filter(is_version_7).map(Self)
                && !ids.contains(&id)
            {
                ids.push(id);
                if ids.len() == MAX_IDS_IN_KEY {
                    break;
                }
            }
        }
        ids
    }
}

fn is_version_7(uuid: &Uuid) -> bool {
    uuid.get_version_num() == 7 && uuid.get_variant() == Variant::RFC4122
}

impl FromStr for IntentId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match Uuid::try_parse(text) {
            Ok(uuid) if uuid.get_version_num() == 7 => Ok(Self(uuid)),
            _ => Err(Invalid::new("must be an id that this service gave out (a UUID, version 7)")),
        }
    }
}

impl fmt::Display for IntentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// How the bytes travel to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UploadMethod {
    /// A presigned `PUT Object`.
    Put,
    /// A presigned `POST Object` form.
    Post,
    /// Presigned `UploadPart` requests, put together by this service.
    Multipart,
    /// Whatever the client signs itself, with credentials that reach an area of the bucket and nothing else.
    Credentials,
}

impl UploadMethod {
    /// The name used in JSON, policies and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Post => "post",
            Self::Multipart => "multipart",
            Self::Credentials => "credentials",
        }
    }
}

impl fmt::Display for UploadMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for UploadMethod {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "put" => Ok(Self::Put),
            "post" => Ok(Self::Post),
            "multipart" => Ok(Self::Multipart),
            "credentials" => Ok(Self::Credentials),
            _ => Err(Invalid::new("must be \"put\", \"post\", \"multipart\" or \"credentials\"")),
        }
    }
}

/// Where an upload stands. Everything but `Issued` and `Inspecting` is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntentState {
    /// A URL was handed out; nothing has been verified yet.
    Issued,
    /// The object was seen in the store and is what was promised; the scanner has not said yet that it is clean.
    Inspecting,
    /// The object was seen in the store and is what was promised.
    Confirmed,
    /// The object was seen in the store and is not what was promised.
    Rejected,
    /// The owner gave it up, or it was revoked and the sweeper did.
    Aborted,
    /// Its time ran out before an object was verified.
    Expired,
}

impl IntentState {
    /// All states, for tables and tests.
    pub const ALL: [Self; 6] =
        [Self::Issued, Self::Inspecting, Self::Confirmed, Self::Rejected, Self::Aborted, Self::Expired];

    /// The name used in JSON and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Inspecting => "inspecting",
            Self::Confirmed => "confirmed",
            Self::Rejected => "rejected",
            Self::Aborted => "aborted",
            Self::Expired => "expired",
        }
    }

    /// What `event` does to an upload in this state: the whole state machine.
    pub const fn on(self, event: IntentEvent) -> Transition {
        match (self, event) {
            // What has arrived in time does not expire any more.
            (Self::Inspecting, IntentEvent::Expire) => Transition::NotAllowed,
            (Self::Inspecting, IntentEvent::Inspect)
            | (Self::Confirmed, IntentEvent::Confirm)
            | (Self::Rejected, IntentEvent::Reject)
            | (Self::Aborted, IntentEvent::Abort)
            | (Self::Expired, IntentEvent::Expire) => Transition::AlreadyThere,
            (Self::Issued | Self::Inspecting, event) => Transition::To(event.target()),
            (Self::Confirmed | Self::Rejected | Self::Aborted | Self::Expired, _) => Transition::NotAllowed,
        }
    }
}

impl fmt::Display for IntentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for IntentState {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| Invalid::new("must be one of: issued, inspecting, confirmed, rejected, aborted, expired"))
    }
}

/// What can happen to an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntentEvent {
    /// The stored object matched, and a scanner has to look at it.
    Inspect,
    /// The stored object matched, and is clean where that had to be asked.
    Confirm,
    /// The stored object did not match, or is not clean.
    Reject,
    /// The owner gave it up, or it was revoked and the sweeper did.
    Abort,
    /// Its deadline passed.
    Expire,
}

impl IntentEvent {
    /// All events, for tables and tests.
    pub const ALL: [Self; 5] = [Self::Inspect, Self::Confirm, Self::Reject, Self::Abort, Self::Expire];

    /// The state that this event leads to where it is allowed.
    pub const fn target(self) -> IntentState {
        match self {
            Self::Inspect => IntentState::Inspecting,
            Self::Confirm => IntentState::Confirmed,
            Self::Reject => IntentState::Rejected,
            Self::Abort => IntentState::Aborted,
            Self::Expire => IntentState::Expired,
        }
    }

    /// Whether it makes something of what has arrived.
    pub const fn accepts(self) -> bool {
        matches!(self, Self::Inspect | Self::Confirm)
    }

    /// The states that this event moves an upload out of: the condition of its UPDATE.
    pub fn sources(self) -> impl Iterator<Item = IntentState> {
        IntentState::ALL.into_iter().filter(move |state| matches!(state.on(self), Transition::To(_)))
    }
}

/// The outcome of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// The upload moves to this state.
    To(IntentState),
    /// It is in the event's target state already: repeating is success.
    AlreadyThere,
    /// It is in another final state.
    NotAllowed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_span_lie_between_its_bounds() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let (from, to) = (at("2026-12-01T00:00:00Z"), at("2027-01-01T00:00:00Z"));
        assert!(IntentId::lowest_at(from) <= IntentId::at(from));
        assert!(IntentId::at(at("2026-12-31T23:59:59.999Z")) < IntentId::lowest_at(to));
        assert!(IntentId::lowest_at(to) <= IntentId::at(to));
    }

    #[test]
    fn ids_for_events_are_ordered_by_what_they_tell() {
        let now: DateTime<Utc> = "2026-12-01T00:00:00Z".parse().unwrap();
        let later = |milliseconds| now + chrono::TimeDelta::milliseconds(milliseconds);
        // What this thread has made before.
        IntentId::at(later(10_000));
        assert!(IntentId::exactly_at(now) < IntentId::exactly_at(later(1)));
        assert_eq!(IntentId::exactly_at(now).issued_at(), Some(now));
    }

    #[test]
    fn ids_do_not_keep_the_time_of_a_clock_that_was_put_right() {
        let now: DateTime<Utc> = "2026-12-01T00:00:00Z".parse().unwrap();
        let wrong = IntentId::at(now + TimeDelta::days(1));
        assert!(wrong >= IntentId::lowest_at(now + TimeDelta::days(1)));
        assert_eq!(IntentId::at(now).issued_at(), Some(now));
        // A little is no reason not to ascend.
        let before = IntentId::at(now + TimeDelta::days(2));
        assert!(before < IntentId::at(now + TimeDelta::days(2) - TimeDelta::milliseconds(500)));
    }

    #[test]
    fn the_state_machine_is_this_table() {
        use IntentEvent::{Abort, Confirm, Expire, Inspect, Reject};
        use IntentState::{Aborted, Confirmed, Expired, Inspecting, Issued, Rejected};

        for state in IntentState::ALL {
            let moves: &[IntentEvent] = match state {
                Issued => &[Inspect, Confirm, Reject, Abort, Expire],
                Inspecting => &[Confirm, Reject, Abort],
                Confirmed | Rejected | Aborted | Expired => &[],
            };
            for event in IntentEvent::ALL {
                let expected = if moves.contains(&event) {
                    Transition::To(event.target())
                } else if state == event.target() {
                    Transition::AlreadyThere
                } else {
                    Transition::NotAllowed
                };
                assert_eq!(state.on(event), expected, "{state} on {event:?}");
            }
        }
        assert_eq!(Confirm.sources().collect::<Vec<_>>(), [Issued, Inspecting]);
        assert_eq!(Expire.sources().collect::<Vec<_>>(), [Issued]);
    }

    #[test]
    fn names_round_trip() {
        for state in IntentState::ALL {
            assert_eq!(state.as_str().parse::<IntentState>().unwrap(), state);
        }
    }

    #[test]
    fn ids_ascend_carry_their_time_and_refuse_other_versions() {
        let now = DateTime::from_timestamp(1_800_000_000, 123_000_000).unwrap();
        let ids: Vec<_> = (0..1000).map(|_| IntentId::at(now)).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        let millis = ids[0].uuid().as_u128() >> 80;
        assert_eq!(millis, 1_800_000_000_123);
        assert_eq!(ids[0].to_string().parse::<IntentId>().unwrap(), ids[0]);
        assert_eq!(ids[0].issued_at(), Some(now));
        assert_eq!(IntentId::all_in(&format!("uploads/{}-a.pdf", ids[0].hex())), [ids[0]]);
        assert_eq!(IntentId::all_in(&format!("{}/c{}", ids[0].hex(), ids[1].hex())), [ids[0], ids[1]]);
        for none in ["", "d41d8cd98f00b204e9800998ecf8427e", &ids[0].hex().to_uppercase(), &ids[0].to_string()] {
            assert_eq!(IntentId::all_in(none), [], "{none}");
        }
        assert!("6f1e7f0a-0f0b-4b52-9d0b-3c9b1a6b0e11".parse::<IntentId>().is_err());
        assert!("nonsense".parse::<IntentId>().is_err());
    }

    #[test]
    fn ids_are_found_wherever_a_key_has_them() {
        let id: IntentId = "01a1fd9a-9a4b-7c3a-9d2b-5f4e6a7b8c9d".parse().unwrap();
        let hex = id.hex();
        for key in [
            format!("uploads/2026/11/{hex}-a.pdf"),
            hex.clone(),
            format!("04{hex}"),
            format!("{hex}beef"),
            format!("u/6f1e7f0a0f0b4b529d0b3c9b1a6b0e11/{hex}/{hex}"),
        ] {
            assert!(IntentId::all_in(&key).contains(&id), "{key}");
        }
        assert_eq!(IntentId::all_in(&format!("{hex}/{hex}")).len(), 1);
        for key in ["", "uploads/a.pdf", &hex[..31], &hex.to_uppercase(), &id.to_string(), &"7".repeat(1024)] {
            assert_eq!(IntentId::all_in(key), [], "{key}");
        }
        assert_eq!(IntentId::all_in(&"0000777788889999".repeat(64)).len(), 4);
        let many: Vec<String> = (0..40).map(|n| format!("{n:012x}78889999{n:012x}")).collect();
        assert_eq!(IntentId::all_in(&many.concat()).len(), MAX_IDS_IN_KEY);
    }
}
