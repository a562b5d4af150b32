//! Files in a browser: saved under their names, and shown.

use std::{os::unix::fs::symlink, process::Command};

use serde_json::{Value, json};

use super::{NAMES, accel, path, upload};
use crate::{
    browser::installed,
    support::{Backend, Suite, app::TokenOptions, backend::BackendKind},
};

const DRIVER: &str = include_str!("../../browser/download.mjs");

pub(super) fn register(suite: &mut Suite<'_>) {
    // The browser is installed by .ci/install, and only the full run requires it.
    let real = [BackendKind::Rgw, BackendKind::SeaweedFs];
    suite.on(&real, "chromium_saves_and_shows_what_is_streamed", |backend| opened(backend, "stream"));
    suite.on(&real, "chromium_saves_and_shows_what_nginx_hands_out", |backend| opened(backend, "accel"));
}

async fn opened(backend: Backend, delivery: &'static str) {
    let app = accel::start(&backend, accel::SETTINGS).await;
    let nginx = accel::Nginx::start(&app, app.folder(), false);
    let alice = app.user("alice");
    let mut save = Vec::new();
    // A browser makes its own of characters that file systems forbid.
    let names: Vec<&str> = NAMES.into_iter().filter(|name| !name.contains(['"', '%', ';'])).collect();
    for name in &names {
        let uploaded = upload(&alice, name, format!("the bytes of {name}").as_bytes()).await;
        save.push(format!("{}{}", nginx.base, path(&uploaded, &format!("?delivery={delivery}"))));
    }
    let script = upload(&alice, "page.html", b"<script>document.title = 'ran'</script>").await;
    save.push(format!("{}{}", nginx.base, path(&script, &format!("?delivery={delivery}"))));
    let with_charset = json!({ "method": "put", "policy": "delivered", "file_type": "text/plain; charset=utf-8" });
    let shown = alice.upload("shown.txt", "показано".as_bytes(), &with_charset).await;
    let show = [format!("{}{}", nginx.base, path(&shown, &format!("?delivery={delivery}&disposition=inline")))];
    let authorization = format!("Bearer {}", app.token(&TokenOptions::default()));
    let job = json!({ "authorization": authorization, "save": save, "show": show });

    let outcome = tokio::task::spawn_blocking(move || drive(&job)).await.unwrap();
    let saved = outcome["saved"].as_array().unwrap();
    assert_eq!(saved.len(), names.len() + 1);
    for (saved, name) in saved.iter().zip(&names) {
        assert_eq!(*saved, json!({ "name": name, "bytes": format!("the bytes of {name}") }));
    }
    assert_eq!(saved[names.len()]["name"], "page.html");
    assert_eq!(outcome["shown"], json!([{ "url": show[0], "text": "показано" }]), "where it was asked for");
    drop(nginx);
    app.end().await;
}

fn drive(job: &Value) -> Value {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Beside the packages, because Node looks for them there.
    let driver = folder.path().join("download.mjs");
    std::fs::write(&driver, DRIVER).expect("the driver is written");
    symlink(installed().join("node_modules"), folder.path().join("node_modules")).expect("a link");
    let output = Command::new("node").arg(&driver).arg(job.to_string()).output().expect("node is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}
