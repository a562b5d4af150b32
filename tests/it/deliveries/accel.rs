//! Files that nginx hands out, with the configuration that is shipped.

use std::{path::Path, process::Command};

use reqwest::{Method, StatusCode, header};
use serde_json::json;

use super::{
    OTHER_ORIGIN, Sender, a_page_of_another_origin_fetches, arrive_with_their_names, bytes_of, curl_resumes, path,
    policies, ranges_and_conditions, upload,
};
use crate::support::{
    AppOptions, Backend, Caller, Reply, Suite, TestApp,
    app::TokenOptions,
    caller::id,
    services::process::{Process, free_port},
};

const CONFIGURATION: &str = include_str!("../../../deploy/nginx/presignd.conf");

pub(super) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("nginx_hands_files_out_with_their_names", names);
    suite.everywhere("nginx_answers_ranges_and_conditions", ranges);
    suite.everywhere("nginx_keeps_files_by_their_confirmed_version", cached);
    suite.everywhere("nobody_but_the_service_chooses_the_internal_path", checklist);
    suite.everywhere("a_folder_is_handed_out_by_apache_and_lighttpd", folders);
    suite.everywhere("accel_without_a_web_server_is_refused", demanded);
    suite.everywhere("nginx_hands_out_what_a_ticket_is_for", tickets);
    suite.everywhere("a_page_of_another_origin_fetches_through_nginx", fetched);
}

/// nginx in front of a service. Dropping it ends nginx.
pub(super) struct Nginx {
    pub(super) base: String,
    _process: Process,
}

impl Nginx {
    /// Starts it in `folder` with the shipped configuration, in which only addresses and folders are others.
    pub(super) fn start(app: &TestApp, folder: &Path, caches: bool) -> Self {
        Self::in_front_of(&app.address().to_string(), folder, caches)
    }

    fn in_front_of(service: &str, folder: &Path, caches: bool) -> Self {
        let port = free_port().expect("a free port");
        let mut configuration = CONFIGURATION.to_owned();
        let changes = [
            ("listen 80;", format!("listen 127.0.0.1:{port};")),
            ("server 127.0.0.1:8080;", format!("server {service};")),
            ("/var/log/nginx/access.log", folder.join("access.log").display().to_string()),
            ("/var/log/nginx/error.log", folder.join("server.log").display().to_string()),
            ("/var/cache/nginx/presignd", folder.join("cache").display().to_string()),
        ];
        for (shipped, here) in changes {
            assert!(configuration.contains(shipped), "{shipped}");
            configuration = configuration.replace(shipped, &here);
        }
        if caches {
            configuration = configuration.replace("#cache:", "");
        }
        let place = folder.display();
        let main = format!(
            "daemon off;\nmaster_process off;\npid {place}/nginx.pid;\nerror_log {place}/error.log;\nevents {{}}\nhttp {{\n\
             access_log off;\nclient_body_temp_path {place}/body;\nproxy_temp_path {place}/proxy;\n\
             fastcgi_temp_path {place}/fastcgi;\nuwsgi_temp_path {place}/uwsgi;\nscgi_temp_path {place}/scgi;\n\
             {configuration}\n}}\n"
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, main).expect("the configuration is written");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder).arg("-c").arg(&file);
        let mut process = Process::spawn("nginx", folder, None, &command).expect("nginx starts");
        process
            .wait_ready(|| std::net::TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|e| e.to_string()))
            .expect("nginx is ready");
        Self { base: format!("http://127.0.0.1:{port}"), _process: process }
    }

    fn user(&self, app: &TestApp, subject: &str) -> Caller {
        let token = app.token(&TokenOptions { subject, ..TokenOptions::default() });
        Caller::new(self.base.clone(), Some(token), [127, 0, 0, 1].into())
    }
}

pub(super) const SETTINGS: &str = "[server]\ntrusted_proxies = [\"127.0.0.1/32\"]\n[delivery]\naccel = \"nginx\"\n";

pub(super) async fn start(backend: &Backend, settings: &str) -> TestApp {
    let options = AppOptions {
        policies: Some(policies("[\"accel\", \"stream\", \"url\"]")),
        settings: settings.to_owned(),
        ..AppOptions::default()
    };
    TestApp::start_with(backend, options).await
}

async fn names(backend: Backend) {
    let app = start(&backend, SETTINGS).await;
    let nginx = Nginx::start(&app, app.folder(), false);
    let reader = nginx.user(&app, "bob").at("127.0.0.11");
    arrive_with_their_names(&app.user("alice"), &reader, "accel").await;
    // Streams go through it as well.
    arrive_with_their_names(&app.user("alice"), &reader, "stream").await;
    drop(nginx);
    app.end().await;
}

async fn ranges(backend: Backend) {
    let app = start(&backend, SETTINGS).await;
    let nginx = Nginx::start(&app, app.folder(), false);
    let bytes = bytes_of(300_000);
    let uploaded = upload(&app.user("alice"), "a.bin", &bytes).await;
    ranges_and_conditions(&nginx.user(&app, "bob"), &path(&uploaded, ""), &bytes, Sender::Nginx).await;
    curl_resumes(&nginx.base, &app.token(&TokenOptions::default()), &path(&uploaded, ""), &bytes).await;
    drop(nginx);
    app.end().await;
}

async fn cached(backend: Backend) {
    let app = start(&backend, SETTINGS).await;
    let nginx = Nginx::start(&app, app.folder(), true);
    let alice = app.user("alice");
    let (reader, bytes) = (nginx.user(&app, "bob"), bytes_of(300_000));
    let uploaded = upload(&alice, "a.bin", &bytes).await;
    ranges_and_conditions(&reader, &path(&uploaded, ""), &bytes, Sender::NginxCache).await;
    // The bytes are there without the store, and only for whoever may read them.
    let row = app.running.service.database.upload(id(&uploaded).parse().unwrap()).await.unwrap().unwrap();
    let delete = app.bucket.s3.delete_object().bucket(&app.bucket.bucket).key(row.verified_key().as_str());
    delete.send().await.expect("it is removed");
    let kept = reader.get(&path(&uploaded, "?file_name=b.bin&disposition=inline")).await;
    kept.expect_status(StatusCode::OK);
    assert!(kept.bytes == bytes);
    assert_eq!(kept.headers[header::CONTENT_DISPOSITION], "inline; filename=\"b.bin\"", "it is of this request");
    let stranger = Caller::new(nginx.base.clone(), None, [127, 0, 0, 1].into());
    stranger.get(&path(&uploaded, "")).await.expect_problem(401, "token_missing");
    let own = alice.upload("a.bin", &bytes, &json!({ "method": "put" })).await;
    reader.get(&path(&own, "")).await.expect_problem(404, "not_found");
    drop(nginx);
    app.end().await;
}

async fn checklist(backend: Backend) {
    let app = start(&backend, SETTINGS).await;
    let nginx = Nginx::start(&app, app.folder(), false);
    let (alice, reader) = (app.user("alice"), nginx.user(&app, "bob"));
    let uploaded = upload(&alice, "a.txt", b"12345").await;
    let secret = alice.upload("secret.txt", b"secret", &json!({ "method": "put" })).await;
    let secret_url = alice.post("/api/v1/downloads", &json!({ "upload_id": secret["id"] })).await;
    let secret_url = secret_url.expect(StatusCode::CREATED)["url"].as_str().unwrap().to_owned();

    // The internal location does not exist for those who ask for it.
    for asked in ["/_presignd/", "/_presignd", "/_presignd/x", "/_presignd/../_presignd/x", "/%5fpresignd/x"] {
        let reply = reader.get(asked).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{asked}");
        assert!(!reply.text().contains("secret"), "{asked}");
    }
    let with_headers = [
        ("x-accel-redirect", "/_presignd/x"),
        ("x-presignd-url", secret_url.as_str()),
        ("x-presignd-range", "bytes=0-0"),
        ("x-sendfile", "/etc/passwd"),
        ("x-original-uri", "/_presignd/x"),
        ("x-rewrite-url", "/_presignd/x"),
    ];
    for asked in ["/_presignd/x".to_owned(), path(&uploaded, "")] {
        let reply = Reply::of(super::get(&reader, &asked, &with_headers)).await;
        if asked.starts_with("/_") {
            assert_eq!(reply.status, StatusCode::NOT_FOUND, "{asked}");
        } else {
            assert_eq!(reply.bytes, b"12345", "{asked}");
        }
    }
    // No id and no query leads anywhere else.
    let of_secret = id(&secret);
    for crafted in [
        of_secret.to_owned(),
        format!("../_presignd/{of_secret}"),
        format!("..%2f_presignd%2f{of_secret}"),
        format!("%2e%2e/%2e%2e/_presignd/{of_secret}"),
        format!("{}%00{of_secret}", id(&uploaded)),
        format!("{}%0d%0aX-Accel-Redirect:%20/etc/passwd", id(&uploaded)),
        "..%2f..%2fetc%2fpasswd".to_owned(),
        format!("{}/..;/{of_secret}", id(&uploaded)),
    ] {
        let reply = reader.get(&format!("/api/v1/files/{crafted}")).await;
        assert!(matches!(reply.status.as_u16(), 400 | 404), "{crafted}: {}", reply.status);
        assert!(!reply.text().contains("root:"), "{crafted}");
    }
    for query in ["?url=/etc/passwd", "?path=/_presignd/x", "?key=secret", "?X-Amz-Signature=x"] {
        reader.get(&path(&uploaded, query)).await.expect_problem(422, "invalid_request");
    }
    let named = reader.get(&path(&uploaded, "?file_name=..%252f..%252fetc%252fpasswd")).await;
    assert_eq!(named.bytes, b"12345", "a name is only a name");

    // What nginx is told, nobody else is: neither through it nor round it.
    let reply = Reply::of(reader.request(Method::HEAD, &path(&uploaded, ""))).await;
    reply.expect_status(StatusCode::OK);
    for (name, value) in &reply.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        assert!(!value.contains("X-Amz-") && !value.contains(&app.bucket.bucket), "{name}: {value}");
        assert!(!name.as_str().starts_with("x-accel") && !name.as_str().starts_with("x-presignd"), "{name}");
    }
    let round = app.user("alice").at("127.0.0.12").get(&path(&uploaded, "")).await;
    round.expect_problem(403, "not_behind_proxy");
    assert!(!round.headers.contains_key("x-presignd-url") && !round.headers.contains_key("x-accel-redirect"));

    // What the store says when it has no file stays with nginx.
    let row = app.running.service.database.upload(id(&uploaded).parse().unwrap()).await.unwrap().unwrap();
    let delete = app.bucket.s3.delete_object().bucket(&app.bucket.bucket).key(row.verified_key().as_str());
    delete.send().await.expect("it is removed");
    let lost = reader.get(&path(&uploaded, "")).await;
    assert_eq!(lost.status, StatusCode::BAD_GATEWAY);
    assert!(!lost.text().contains(&app.bucket.bucket) && !lost.text().contains("NoSuchKey"), "{}", lost.text());
    drop(nginx);
    app.end().await;
}

async fn folders(backend: Backend) {
    for (server, header) in [("apache", "x-sendfile"), ("lighttpd", "x-lighttpd-send-file")] {
        let settings = SETTINGS.replace("\"nginx\"", &format!("\"{server}\"\naccel_root = \"/mnt/a bucket\""));
        let app = start(&backend, &settings).await;
        let alice = app.user("alice");
        let uploaded = upload(&alice, "отчёт.txt", b"12345").await;
        let row = app.running.service.database.upload(id(&uploaded).parse().unwrap()).await.unwrap().unwrap();
        let reply = alice.get(&path(&uploaded, "")).await;
        reply.expect_status(StatusCode::OK);
        assert_eq!(reply.bytes, b"");
        let told = reply.headers[header].to_str().unwrap();
        assert_eq!(told, format!("/mnt/a%20bucket/{}", row.verified_key().as_str()));
        assert_eq!(reply.headers[header::CONTENT_TYPE], "text/plain");
        alice.at("127.0.0.12").get(&path(&uploaded, "")).await.expect_problem(403, "not_behind_proxy");
        app.end().await;
    }
}

async fn demanded(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let before = app.running.policies.current().version().to_owned();
    let status = app.change_policies(&policies("[\"url\", \"accel\"]")).await;
    let problem = status.last_error.expect("it is refused");
    assert!(problem.contains("policy.delivered.delivery: needs delivery.accel"), "{problem}");
    assert_eq!(app.running.policies.current().version(), before);
    app.end().await;
}

async fn tickets(backend: Backend) {
    let policies = "[policy.default]\nmethods = [\"put\"]\ndelivery = \"accel\"\ndownload.uses = 2\n".to_owned();
    let options = AppOptions { policies: Some(policies), settings: SETTINGS.to_owned(), ..AppOptions::default() };
    let app = TestApp::start_with(&backend, options).await;
    let nginx = Nginx::start(&app, app.folder(), false);
    let alice = nginx.user(&app, "alice").at("127.0.0.11");
    let bytes = bytes_of(300_000);
    let uploaded = alice.upload("a.bin", &bytes, &json!({ "method": "put" })).await;
    let body = json!({ "upload_id": uploaded["id"], "file_name": "b.bin" });
    let issued = alice.post("/api/v1/downloads", &body).await.expect(StatusCode::CREATED);
    assert_eq!((&issued["delivery"], &issued["client_network"]), (&json!("accel"), &json!("127.0.0.11/32")));
    let ticket = issued["url"].as_str().unwrap();
    let ticket = ticket[ticket.find("/t/").expect("a ticket")..].to_owned();

    let holder = alice.anonymous();
    let elsewhere = holder.at("127.0.0.12");
    elsewhere.get(&ticket).await.expect_problem(403, "ticket_elsewhere");
    let whole = holder.get(&ticket).await;
    whole.expect_status(StatusCode::OK);
    assert!(whole.bytes == bytes);
    assert_eq!(whole.headers[header::CONTENT_DISPOSITION], "attachment; filename=\"b.bin\"");
    assert_eq!(whole.headers[header::REFERRER_POLICY], "no-referrer");
    let part = Reply::of(super::get(&holder, &ticket, &[("range", "bytes=1000-1999")])).await;
    assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
    assert!(part.bytes == bytes[1000..2000]);
    holder.get(&ticket).await.expect_problem(410, "ticket_used");
    drop(nginx);
    // A ticket that is not used up yet is as good as the file to whoever reads the log.
    let logged = std::fs::read_to_string(app.folder().join("access.log")).expect("a log");
    assert!(logged.contains("POST /api/v1/downloads") && !logged.contains("/t/"), "{logged}");
    // Nor when nobody answers, as at every restart.
    let folder = tempfile::tempdir().unwrap();
    let nginx = Nginx::in_front_of("127.0.0.1:1", folder.path(), false);
    let anonymous = Caller::new(nginx.base.clone(), None, [127, 0, 0, 1].into());
    assert_eq!(anonymous.get(&ticket).await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(anonymous.get("/metrics").await.status, StatusCode::NOT_FOUND);
    drop(nginx);
    for log in ["access.log", "server.log", "error.log"] {
        let logged = std::fs::read_to_string(folder.path().join(log)).expect("a log");
        assert!(!logged.contains("/t/"), "{log}: {logged}");
    }
    app.end().await;
}

async fn fetched(backend: Backend) {
    let settings = SETTINGS.replace("[server]\n", &format!("[server]\ncors_allowed_origins = [\"{OTHER_ORIGIN}\"]\n"));
    let app = start(&backend, &settings).await;
    let uploaded = upload(&app.user("alice"), "a.txt", b"12345").await;
    for caches in [false, true] {
        let nginx = Nginx::start(&app, app.folder(), caches);
        a_page_of_another_origin_fetches(&nginx.user(&app, "alice"), &path(&uploaded, "")).await;
        let own = nginx.user(&app, "alice").get(&path(&uploaded, "")).await;
        assert!(!own.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN), "no other page has asked");
        assert!(own.headers.contains_key("x-request-id"));
    }
    app.end().await;
}
