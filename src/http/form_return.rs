//! Forms that lead to another page: where the store sends the browser, and where that is sent on to.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use reqwest::Url;

use super::{ApiError, ErrorCode, FieldError, State};
use crate::{
    config::server::is_web_url,
    domain::{Claim, Confirmer, FormReturn},
    model::IntentId,
};

/// The path of the callback, without what a form adds to it.
const CALLBACK_PATH: &str = "/api/v1/callbacks/form";

/// The longest URL of a page, in bytes: S3 takes forms of 20 KB, but browsers and proxies do not take every URL.
const MAX_PAGE_BYTES: usize = 2048;

/// `GET /api/v1/callbacks/form/{id}/{token}/{page}`, the target of `success_action_redirect`: confirms, and sends the
/// browser on. The query is the store's.
///
/// A token that is wrong and a page that is not allowed are problems and lead nowhere. Everything else is the page's to
/// show, so it is told there.
pub(super) async fn receive(state: web::Data<State>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let segment = |name: &str| request.match_info().get(name).unwrap_or_default();
    let page = FormReturn::page_of(segment("page")).unwrap_or_default();
    let mut page = allowed_page(&state, "page", &page)?;
    let id: IntentId = segment("id").parse().map_err(|_| ApiError::new(ErrorCode::CallbackTokenInvalid))?;
    let confirmed = state.service.confirm_upload(id, Confirmer::Token(segment("token")), Claim::default()).await;
    let outcome = match confirmed {
        Ok(upload) => ("state", upload.state.as_str()),
        Err(error) => {
            let error = ApiError::from(error);
            match error.code() {
                ErrorCode::CallbackTokenInvalid | ErrorCode::NotFound => return Err(error),
                code if code.status().is_server_error() => log::error!("a form could not be confirmed: {error}"),
                _ => {}
            }
            ("error", error.code().as_str())
        }
    };
    page.query_pairs_mut().append_pair("upload_id", &id.to_string()).append_pair(outcome.0, outcome.1);
    // See Other (RFC 9110 section 15.4.4): a page to GET, whatever led here.
    Ok(HttpResponse::build(StatusCode::SEE_OTHER).insert_header((header::LOCATION, page.as_str())).finish())
}

/// What an upload whose request asks for the page `page` leads to.
pub(super) fn form_return(state: &State, page: Option<&str>) -> Result<Option<FormReturn>, ApiError> {
    let Some(page) = page else { return Ok(None) };
    let page = allowed_page(state, "success_action_redirect", page)?;
    Ok(Some(FormReturn { callback_url: format!("{}{CALLBACK_PATH}", state.base_url), page: page.into() }))
}

/// The page, if it is of an origin that the settings list. Without that, this service would lend its name to whoever
/// wants to lead people astray.
fn allowed_page(state: &State, field: &str, text: &str) -> Result<Url, ApiError> {
    let page = Url::parse(text).ok().filter(|page| {
        let origin = page.origin().ascii_serialization();
        // As it comes back, with characters beyond ASCII percent-encoded: what is taken now must be taken then.
        page.as_str().len() <= MAX_PAGE_BYTES && is_web_url(page) && state.redirect_origins.contains(&origin)
    });
    page.ok_or_else(|| {
        let rule = format!(
            "must be an http or https URL of at most {MAX_PAGE_BYTES} bytes, percent-encoded, whose origin is listed in \
             server.redirect_allowed_origins"
        );
        ApiError::fields(ErrorCode::InvalidRequest, vec![FieldError::new(field, rule)])
    })
}
