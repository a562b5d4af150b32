//! What is promised of the size of a file that has yet to be uploaded.

use super::ByteSize;

/// The size of a file that has yet to be uploaded: browsers know it, but not every uploader asks them and tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizePromise {
    /// This size and no other.
    Exact(ByteSize),
    /// Any size up to this one.
    AtMost(ByteSize),
}

impl SizePromise {
    /// The largest size that keeps the promise.
    pub const fn largest(self) -> ByteSize {
        match self {
            Self::Exact(size) | Self::AtMost(size) => size,
        }
    }

    /// Whether only a limit is promised.
    pub const fn is_limit(self) -> bool {
        matches!(self, Self::AtMost(_))
    }

    /// Whether an object of `size` bytes keeps the promise.
    pub const fn admits(self, size: u64) -> bool {
        match self {
            Self::Exact(promised) => size == promised.bytes(),
            Self::AtMost(limit) => size <= limit.bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_admits_what_is_smaller_and_an_exact_size_nothing_else() {
        let ten = ByteSize::from_bytes(10);
        let admitted = |promise: SizePromise| [0, 9, 10, 11].map(|size| promise.admits(size));
        assert_eq!(admitted(SizePromise::Exact(ten)), [false, false, true, false]);
        assert_eq!(admitted(SizePromise::AtMost(ten)), [true, true, true, false]);
    }
}
