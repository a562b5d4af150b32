//! How a file is cut into the parts of a multipart upload.
//!
//! Bounds: "Amazon S3 multipart upload limits",
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>.

use std::fmt;

use serde::Serialize;

use super::{ByteSize, Invalid};

/// The number of a part: 1 to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PartNumber(u16);

impl PartNumber {
    /// The highest number, and so the most parts that an upload can have.
    pub const MAX: u16 = 10_000;

    /// The part `number`, if S3 has one of that number.
    pub fn new(number: u64) -> Option<Self> {
        u16::try_from(number).ok().filter(|number| (1..=Self::MAX).contains(number)).map(Self)
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for PartNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One part of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedPart {
    number: PartNumber,
    length: u64,
}

impl PlannedPart {
    /// Which part.
    pub const fn number(self) -> PartNumber {
        self.number
    }

    /// Its length in bytes: that of every part but for the last, which has the rest.
    pub const fn length(self) -> u64 {
        self.length
    }
}

/// A file cut into parts of one size, of which the last may be shorter. Some stores take no parts of unequal sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartPlan {
    file_size: u64,
    part_size: u64,
    part_count: u16,
}

impl PartPlan {
    /// The smallest part but for the last.
    pub const SMALLEST_PART: ByteSize = ByteSize::from_bytes(5 << 20);
    /// The largest part.
    pub const LARGEST_PART: ByteSize = ByteSize::from_bytes(5 << 30);
    /// The largest file: what S3 took as one object until it took more, and what compatible stores take.
    pub const LARGEST_FILE: ByteSize = ByteSize::from_bytes(5 << 40);

    /// Cuts a file of `file_size` bytes into parts of `preferred` bytes, or of as many whole mebibytes as it takes to
    /// get by with 10,000 parts.
    ///
    /// # Errors
    /// For an empty file, which has no parts, and for one that is too large.
    pub fn new(file_size: u64, preferred: ByteSize) -> Result<Self, Invalid> {
        let least = file_size.div_ceil(PartNumber::MAX.into()).div_ceil(1 << 20) << 20;
        let preferred = preferred.bytes();
        let suffices = preferred.checked_mul(PartNumber::MAX.into()).is_none_or(|most| most >= file_size);
        Self::with_part_size(file_size, if suffices { preferred } else { least })
    }

    /// The plan of a file that was cut into parts of `part_size` bytes before.
    ///
    /// # Errors
    /// When S3 would not take such parts.
    pub fn with_part_size(file_size: u64, part_size: u64) -> Result<Self, Invalid> {
        if !(1..=Self::LARGEST_FILE.bytes()).contains(&file_size) {
            return Err(Invalid::new(format!("must be 1 byte to {} to have parts", Self::LARGEST_FILE)));
        }
        let (smallest, largest) = (Self::SMALLEST_PART, Self::LARGEST_PART);
        if !(smallest.bytes()..=largest.bytes()).contains(&part_size) {
            return Err(Invalid::new(format!("must have parts of {smallest} to {largest}")));
        }
        let count = PartNumber::new(file_size.div_ceil(part_size));
        let count = count.ok_or_else(|| Invalid::new(format!("must have at most {} parts", PartNumber::MAX)))?;
        Ok(Self { file_size, part_size, part_count: count.get() })
    }

    /// Length in bytes of every part but for the last.
    pub const fn part_size(&self) -> u64 {
        self.part_size
    }

    /// How many parts there are.
    pub const fn part_count(&self) -> u16 {
        self.part_count
    }

    /// The part with this number, if there is one.
    pub fn part(&self, number: PartNumber) -> Option<PlannedPart> {
        if number.get() > self.part_count {
            return None;
        }
        let start = u64::from(number.get() - 1) * self.part_size;
        Some(PlannedPart { number, length: (self.file_size - start).min(self.part_size) })
    }

    /// All parts, in order.
    pub fn parts(&self) -> impl Iterator<Item = PlannedPart> {
        (1..=self.part_count).filter_map(|number| self.part(PartNumber(number)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    const TIB: u64 = 1 << 40;

    fn plan(file_size: u64, preferred: u64) -> PartPlan {
        PartPlan::new(file_size, ByteSize::from_bytes(preferred)).unwrap()
    }

    #[test]
    fn part_numbers_are_1_to_10_000() {
        for good in [1, 2, 10_000] {
            assert_eq!(u64::from(PartNumber::new(good).unwrap().get()), good);
        }
        for bad in [0, 10_001, 65_536, 65_537, u64::MAX] {
            assert_eq!(PartNumber::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn files_are_cut_at_the_limits_as_this_table_says() {
        for (file_size, preferred, part_size, part_count, last) in [
            (1, 5 * MIB, 5 * MIB, 1, 1),
            (5 * MIB - 1, 5 * MIB, 5 * MIB, 1, 5 * MIB - 1),
            (5 * MIB, 5 * MIB, 5 * MIB, 1, 5 * MIB),
            (5 * MIB + 1, 5 * MIB, 5 * MIB, 2, 1),
            (250 * MIB, 8 * MIB, 8 * MIB, 32, 2 * MIB),
            (5 * GIB - 1, 5 * GIB, 5 * GIB, 1, 5 * GIB - 1),
            (5 * GIB, 5 * GIB, 5 * GIB, 1, 5 * GIB),
            (5 * GIB + 1, 5 * GIB, 5 * GIB, 2, 1),
            (10_000 * 5 * MIB - 1, 5 * MIB, 5 * MIB, 10_000, 5 * MIB - 1),
            (10_000 * 5 * MIB, 5 * MIB, 5 * MIB, 10_000, 5 * MIB),
            // One byte more takes larger parts.
            (10_000 * 5 * MIB + 1, 5 * MIB, 6 * MIB, 8_334, 2 * MIB + 1),
            (5 * TIB - 1, 8 * MIB, 525 * MIB, 9_987, 230 * MIB - 1),
            (5 * TIB, 8 * MIB, 525 * MIB, 9_987, 230 * MIB),
            // A size that no policy can hold is served all the same where the parts suffice.
            (11 * MIB, 5 * MIB + KIB, 5 * MIB + KIB, 3, MIB - 2 * KIB),
        ] {
            let plan = plan(file_size, preferred);
            let found = (plan.part_size(), plan.part_count(), plan.parts().last().unwrap().length());
            assert_eq!(found, (part_size, part_count, last), "{file_size} in parts of {preferred}");
        }
    }

    #[test]
    fn what_has_no_parts_is_refused() {
        let preferred = ByteSize::from_bytes(8 * MIB);
        for file_size in [0, 5 * TIB + 1, u64::MAX] {
            assert!(PartPlan::new(file_size, preferred).is_err(), "{file_size}");
        }
        for (file_size, part_size) in
            [(MIB, 0), (MIB, 5 * MIB - 1), (MIB, 5 * GIB + 1), (MIB, u64::MAX), (10_000 * 5 * MIB + 1, 5 * MIB)]
        {
            assert!(PartPlan::with_part_size(file_size, part_size).is_err(), "{file_size} in parts of {part_size}");
        }
    }

    proptest! {
        #[test]
        fn every_plan_is_one_that_s3_takes_and_covers_the_file(
            file_size in prop_oneof![1..=5 * TIB, 1..=100 * MIB, 49_000 * MIB..=51_000 * MIB],
            preferred in prop_oneof![5 * MIB..=5 * GIB, 5 * MIB..=16 * MIB],
        ) {
            let plan = plan(file_size, preferred);
            prop_assert!(plan.part_size() >= preferred);
            prop_assert!((5 * MIB..=5 * GIB).contains(&plan.part_size()));
            let parts: Vec<_> = plan.parts().collect();
            prop_assert_eq!(parts.len(), usize::from(plan.part_count()));
            prop_assert!(parts.len() <= 10_000);
            prop_assert_eq!(parts.iter().map(|part| part.length()).sum::<u64>(), file_size);
            let (last, rest) = parts.split_last().unwrap();
            prop_assert!(rest.iter().all(|part| part.length() == plan.part_size()));
            prop_assert!((1..=plan.part_size()).contains(&last.length()));
            prop_assert!(parts.iter().zip(1_u16..).all(|(part, number)| part.number().get() == number));
            prop_assert_eq!(plan.part(PartNumber(plan.part_count() + 1)), None);
            prop_assert_eq!(PartPlan::with_part_size(file_size, plan.part_size()), Ok(plan));
        }
    }
}
