//! The contract, and what every error means.

use actix_web::{HttpResponse, http::header, web};

use super::{ErrorCode, State};

const OPENAPI: &str = include_str!("../../openapi.yaml");

/// `GET /openapi.yaml`
pub(super) async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type("application/yaml").body(OPENAPI)
}

/// `GET /docs`: where the `type` of every problem points.
pub(super) async fn page(state: web::Data<State>) -> HttpResponse {
    let rows = ErrorCode::ALL.iter().map(|code| {
        format!(
            "<tr id=\"{0}\"><td><code>{0}</code></td><td>{1}</td><td>{2}</td><td>{3}</td></tr>\n",
            code.as_str(),
            code.status().as_u16(),
            escape(code.title()),
            escape(code.help())
        )
    });
    let rows = rows.collect::<Vec<_>>().concat();
    let body = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>presignd: errors</title>\n\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;\
         color-scheme:light dark}}td,th{{text-align:left;vertical-align:top;padding:.4rem .8rem .4rem 0}}\
         tr:target{{outline:2px solid}}</style>\n<h1>presignd</h1>\n\
         <p>The contract is <a href=\"{}/openapi.yaml\">openapi.yaml</a>. A failure is \
         <code>application/problem+json</code> with one of these codes; at <code>/u/…/xml</code> it is XML with \
         the same codes. When <code>/readyz</code> is not ready or <code>/metrics</code> fails, there is no code.</p>\n\
         <table>\n<tr><th>code</th><th>status</th><th>meaning</th><th>what to do</th></tr>\n{rows}</table>\n</html>\n",
        escape(&state.base_url)
    );
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(body)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
