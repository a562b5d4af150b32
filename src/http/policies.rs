//! The policies in force.

use actix_web::{HttpResponse, web};

use super::{ApiError, State, extract::Authenticated};

/// `GET /api/v1/policies`
pub(super) async fn show(state: web::Data<State>, _: Authenticated) -> Result<HttpResponse, ApiError> {
    let document = state.service.policies.current();
    Ok(HttpResponse::Ok().json(document.in_force(state.service.clock.now())))
}
