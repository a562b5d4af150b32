//! The rules that operators rotate: which files, how large, by which method, for how long, from which network.
//!
//! `policies.toml` is parsed into a [`PolicyDocument`], which answers with the [`Rules`] in force at an instant, and
//! rules decide about a request without I/O and without a clock. [`watch`] follows the file and swaps the document.
//!
//! ```toml
//! [policy.default]                     # "default" must exist; every key may be left out
//! methods = ["post", "put"]            # of post, put, multipart and credentials; the first that suits is the default
//! upload.expires_in = "5m"             # whole seconds, "1s" to "7d"
//! upload.min_rate = "off"              # or "64KiB/s": longer for files that take longer at that speed
//! upload.max_expires_in = "7d"         # at most this long, whatever the speed
//! upload.renew_within = "7d"           # how long after its issue an upload may be renewed, "1s" to "30d"
//! upload.multipart_above = "100MiB"    # larger files go in parts where methods has multipart, 0 to "5GiB"
//! upload.part_size = "8MiB"            # "5MiB" to "5GiB"; larger where there would be more than 10,000 parts
//! download.expires_in = "60s"          # the same as upload.expires_in
//! download.uses = "off"                # or 1 to 1000: downloads are tickets that can be redeemed so often
//! download.ip_scope = "off"            # or as ip_scope, whose value is the default
//! min_size = 0                         # bytes, or with a unit
//! max_size = "100MiB"                  # up to "5GiB" in one request, "5TiB" with multipart or credentials
//! content_types = ["*/*"]              # media ranges
//! key = "uploads/{yyyy}/{mm}/{id}-{name}"  # also {dd}, {tenant} and {user}; {id} is required
//! readers = "owner"                    # owner | tenant | authenticated
//! ip_scope = { v4 = 32, v6 = 64 }      # or "off"
//! checksum = "optional"                # or "required"
//! delivery = "url"                     # or a list of url | redirect | stream | accel | cdn, the first is the default
//! confirm.grace = "1h"                 # how long after the URL's end an upload may still be confirmed, "0s" to "30d"
//! sniff = "warn"                       # off | warn | reject: what about files that are not of the declared type
//! inspection = "off"                   # or "required": a scanner has to find a file clean
//!
//! [[policy.default.schedule]]          # any number, in ascending order
//! from = "2027-01-01T00:00:00Z"        # RFC 3339, with its offset
//! upload.expires_in = "2m"             # any of the keys above, from that instant on
//! ```

mod decision;
mod diff;
mod document;
mod format;
mod key_template;
mod reload;
mod rules;
mod view;

pub use decision::{FileRequest, Refusal, UploadDecision};
pub use diff::{Change, diff};
pub use document::PolicyDocument;
pub use format::{PolicyError, PolicyProblem};
pub use key_template::KeyTemplate;
pub use reload::{LoadError, PolicyHandle, PolicyStatus, PolicyWatcher, load, watch};
pub use rules::{ChecksumRule, InspectionRule, Readers, Rules, SniffRule};
pub use view::PoliciesView;
