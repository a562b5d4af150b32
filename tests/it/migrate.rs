//! The commands of `docs/migrate/`, run one page after the other as somebody would paste them.

use std::{fs, path::Path, process::Command};

use crate::support::{
    AppOptions, Backend, Suite, TestApp,
    app::{AUDIENCE, ISSUER, JWT_SECRET, TokenOptions},
};

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.needing("curl", |suite| {
        suite.needing("jq", |suite| {
            suite.needing("python3", |suite| {
                for page in pages() {
                    // Pages say themselves what they ask of a store: forms by its own credentials, if forms at all.
                    suite
                        .everywhere(&format!("the_commands_of_{page}_work"), move |backend| run(backend, page.clone()));
                }
            });
        });
    });
}

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/migrate");

/// The pages that somebody comes from a system to.
fn pages() -> Vec<String> {
    let entries = fs::read_dir(FOLDER).expect("docs/migrate is there");
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut pages: Vec<String> = names.filter_map(|name| name.strip_suffix(".md").map(str::to_owned)).collect();
    pages.retain(|page| page != "README");
    pages.sort();
    pages
}

/// The blocks of a page that are in this language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(FOLDER).join(format!("{page}.md"))).unwrap();
    let begin = format!("```{language}\n");
    let blocks = text.split(&begin).skip(1).map(|rest| rest.split_once("```").expect("a block ends").0.to_owned());
    let blocks: Vec<String> = blocks.collect();
    assert!(!blocks.is_empty(), "{page} has no {language}");
    blocks
}

async fn run(backend: Backend, page: String) {
    // Settings say that they are some.
    let is_settings = |block: &String| block.starts_with("# presignd.toml\n");
    let (settings, policies): (Vec<_>, Vec<_>) = blocks(&page, "toml").into_iter().partition(is_settings);
    let (settings, policies) = (settings.join("\n"), policies.join("\n"));
    // Without a scope they are for every deployment; forms then need credentials that are nobody's session.
    let unscoped = policies.contains("ip_scope = \"off\"");
    let options = AppOptions { policies: Some(policies), settings, unscoped, ..AppOptions::default() };
    let app = TestApp::start_with(&backend, options).await;
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "60", "bash", "-euo", "pipefail", "-c", &blocks(&page, "sh").join("\n")]);
    command.current_dir(folder.path()).env("BASE", app.base());
    command.env("TOKEN", app.token(&TokenOptions::default()));
    command.envs([("ISSUER", ISSUER), ("AUDIENCE", AUDIENCE), ("SECRET", JWT_SECRET)]);
    let output = command.output().expect("bash and timeout are installed");
    assert!(
        output.status.success(),
        "{page}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    app.end().await;
}
