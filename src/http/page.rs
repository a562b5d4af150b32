//! The page for people: the files of `web/` and the TypeScript client, as they are.

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
    web::{self, ServiceConfig},
};

const ICON: &str = include_str!("../../web/icon.svg");
const INDEX: &str = include_str!("../../web/index.html");
const SCRIPT: &str = include_str!("../../web/app.js");
const STYLE: &str = include_str!("../../web/style.css");
const CLIENT: &str = include_str!("../../clients/typescript/dist/index.js");

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The page, and whom it may talk to.
#[derive(Debug, Clone)]
pub struct Page {
    /// `Content-Security-Policy`: nothing runs but the page's own scripts, and nothing is asked but this service and the
    /// store.
    policy: HeaderValue,
}

impl Page {
    /// The page for a store that clients reach at `store_origin`.
    pub fn new(store_origin: &str) -> Self {
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' {store_origin}; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
        );
        // An origin is always such a value. Were it not, the page would do nothing, which is safer than everything.
        Self { policy: HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'")) }
    }

    /// The page's routes, which are no part of the API's contract: only the page itself asks for them.
    pub fn routes(&self, app: &mut ServiceConfig) {
        app.service(web::resource("/").app_data(web::Data::new(self.clone())).route(web::get().to(index)))
            .route("/web/app.js", web::get().to(async || file(JAVASCRIPT).body(SCRIPT)))
            .route("/web/client.js", web::get().to(async || file(JAVASCRIPT).body(CLIENT)))
            .route("/web/icon.svg", web::get().to(async || file("image/svg+xml").body(ICON)))
            .route("/web/style.css", web::get().to(async || file("text/css; charset=utf-8").body(STYLE)));
    }
}

/// `GET /`
async fn index(page: web::Data<Page>) -> HttpResponse {
    file("text/html; charset=utf-8").insert_header((header::CONTENT_SECURITY_POLICY, page.policy.clone())).body(INDEX)
}

/// Not to be kept: a page of one version with the script of another would break in ways that nobody understands.
fn file(content_type: &'static str) -> HttpResponseBuilder {
    let mut response = HttpResponseBuilder::new(StatusCode::OK);
    response
        .content_type(content_type)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
    response
}
