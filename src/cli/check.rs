//! `presignd check`

use tokio::runtime::Handle;

use super::{ConfigArgs, Failure, print};
use crate::app;

pub(super) async fn run(args: &ConfigArgs, runtime: &Handle) -> Result<(), Failure> {
    let config = args.load()?;
    let policies = app::check(&config, runtime.clone()).await?;
    print(format_args!("{}: ok", args.config.display()));
    print(format_args!("{}: ok, version {}", config.policies.file.display(), policies.version()));
    for remark in app::remarks(&policies, &config) {
        print(format_args!("note: {remark}"));
    }
    Ok(())
}
