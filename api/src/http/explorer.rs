//! `/docs`: the OpenAPI document as a page on which every operation can be tried. Swagger UI, within the program, set up so
//! that it loads nothing from anywhere else.

use std::sync::Arc;

use actix_web::{
    HttpResponse, get,
    http::header::{self, ContentEncoding},
    web,
};
use utoipa_swagger_ui::{Config, serve};

use super::problem::{Problem, no_route};

/// Whatever the page shows, it runs no script but its own and talks to this service alone. Swagger UI sets styles in elements.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What of Swagger UI the page uses.
const PARTS: [&str; 2] = ["swagger-ui-bundle.js", "swagger-ui.css"];

/// The page and its parts.
#[get("/docs/{file:.*}")]
pub(super) async fn get_explorer(file: web::Path<String>) -> Result<HttpResponse, Problem> {
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // An update of the service brings another explorer.
        .insert_header((header::CACHE_CONTROL, "no-cache"));
    let (content_type, text) = match file.as_str() {
        "" => ("text/html; charset=utf-8", include_str!("explorer/index.html")),
        "explorer.js" => ("text/javascript; charset=utf-8", include_str!("explorer/explorer.js")),
        "explorer.css" => ("text/css; charset=utf-8", include_str!("explorer/explorer.css")),
        part if PARTS.contains(&part) => {
            let Ok(Some(part)) = serve(part, Arc::new(Config::default())) else { return no_route().await };
            if part.gzpipped {
                response.insert_header(ContentEncoding::Gzip);
            }
            return Ok(response.content_type(part.content_type).body(part.bytes.into_owned()));
        }
        _ => return no_route().await,
    };
    Ok(response.content_type(content_type).body(text))
}
