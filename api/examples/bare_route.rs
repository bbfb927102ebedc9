//! What actix-web answers when nothing has to be found out: the bytes of a file, to whatever path. The measurements hold answers from
//! memory against it.
//!
//! usage: `bare_route CONTEXT LIST COUNT`, each a file; prints its address. Two threads, as the service has on two cores.

use std::{env, fs, io};

use actix_web::{App, HttpResponse, HttpServer, web};

#[actix_web::main]
async fn main() -> io::Result<()> {
    let file = |nth| {
        let path =
            env::args().nth(nth).ok_or_else(|| io::Error::other("usage: bare_route CONTEXT LIST COUNT"))?;
        fs::read(path).map(web::Bytes::from)
    };
    let (context, list, count) = (file(1)?, file(2)?, file(3)?);
    let answer = |bytes: &web::Bytes| {
        let bytes = bytes.clone();
        web::to(move || {
            let bytes = bytes.clone();
            async move { HttpResponse::Ok().content_type("application/json").body(bytes) }
        })
    };
    let server = HttpServer::new(move || {
        App::new()
            .route("/v1/contexts", answer(&list))
            .route("/v1/contexts/count", answer(&count))
            .route("/v1/contexts/{id}", answer(&context))
    })
    .workers(2)
    .bind(("127.0.0.1", 0))?;
    for address in server.addrs() {
        println!("{address}");
    }
    server.run().await
}
