//! Progress on a terminal.

use std::{fmt::Display, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// How often it is drawn at least, so that whoever watches sees that it goes on.
const TICK: Duration = Duration::from_millis(200);

/// A bar on standard error that counts `what`. Draws nothing where that is not a terminal.
pub(super) fn counting(what: &str) -> ProgressBar {
    let bar = ProgressBar::no_length();
    let template = format!("{{spinner}} {{pos}} {what}, {{per_sec}} {{msg}}");
    // A template that does not parse is no reason not to work.
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    bar
}

/// Writes a line to standard output without tearing the bar.
pub(super) fn print_above(bar: &ProgressBar, line: impl Display) {
    bar.suspend(|| super::print(line));
}
