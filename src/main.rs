//! The `presignd` binary.

fn main() {}
