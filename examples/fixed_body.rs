//! The floor of the benchmark: actix-web answers the same request with a fixed body of the same size, and does
//! nothing else. `fixed_body ADDRESS BODY_FILE`.

use std::{env, fs, future::ready, io};

use actix_web::{App, HttpResponse, HttpServer, web};

#[actix_web::main]
async fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let (Some(address), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("usage: fixed_body ADDRESS BODY_FILE"));
    };
    let body = web::Bytes::from(fs::read(file)?);
    HttpServer::new(move || {
        let body = body.clone();
        // The request's body is read as well: it has to travel in both cases.
        App::new().route("/api/v1/uploads", web::post().to(move |_request: web::Bytes| ready(answer(body.clone()))))
    })
    .workers(2)
    .bind(address)?
    .run()
    .await
}

fn answer(body: web::Bytes) -> HttpResponse {
    HttpResponse::Created().content_type("application/json").body(body)
}
