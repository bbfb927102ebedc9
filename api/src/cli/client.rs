//! What the commands that talk to the API have in common: where it is, the key, and what its refusals say.

use std::time::Duration;

use clap::Args;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::config::Source;

#[derive(Clone, Debug, Args)]
pub(super) struct ApiArguments {
    /// Where the API is
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: reqwest::Url,
}

/// The API, as a client sees it.
pub(super) struct Api {
    client: Client,
    url: reqwest::Url,
    key: SecretString,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    code: String,
    detail: String,
    #[serde(default)]
    errors: Vec<RefusedField>,
}

#[derive(Debug, Deserialize)]
struct RefusedField {
    pointer: String,
    detail: String,
}

/// Why something did not work.
#[derive(Debug)]
pub(super) enum ApiError {
    /// It may work later.
    Transient(String),
    Permanent(String),
}

impl ApiError {
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Transient(_))
    }

    pub(super) fn words(self) -> String {
        match self {
            Self::Transient(words) | Self::Permanent(words) => words,
        }
    }
}

impl From<reqwest::Error> for ApiError {
    fn from(error: reqwest::Error) -> Self {
        let mut words = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            words = format!("{words}: {error}");
            cause = error.source();
        }
        Self::Transient(words)
    }
}

impl Api {
    pub(super) fn new(source: &Source, arguments: ApiArguments) -> Result<Self, Box<dyn std::error::Error>> {
        let key = source.text("CONTEXT_API_KEY")?.ok_or(
            "set CONTEXT_API_KEY to an API key with the scopes `write` and `read` (context-api keys create)",
        )?;
        let url = arguments.url;
        // No deadline for a request as a whole: an import takes as long as its file does.
        let builder =
            Client::builder().connect_timeout(Duration::from_secs(5)).tcp_keepalive(Duration::from_secs(30));
        // What is on this machine is not asked for through a proxy, which would also see the key.
        let is_local = url.host_str().is_some_and(|host| ["127.0.0.1", "localhost", "[::1]"].contains(&host));
        let client = if is_local { builder.no_proxy().build()? } else { builder.build()? };
        Ok(Self { client, url, key: key.into() })
    }

    pub(super) fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, ApiError> {
        let url = self.url.join(path).map_err(|error| ApiError::Permanent(error.to_string()))?;
        Ok(self.client.request(method, url).bearer_auth(self.key.expose_secret()))
    }

    /// How many contexts match `filter`.
    pub(super) async fn count(&self, body: &serde_json::Value) -> Result<u64, ApiError> {
        #[derive(Deserialize)]
        struct Counted {
            count: u64,
        }
        let request = self.request(Method::POST, "/v1/contexts/count")?;
        let response = request.timeout(Duration::from_secs(60)).json(body).send().await?;
        Ok(checked(response).await?.json::<Counted>().await?.count)
    }
}

/// The response, unless it is a refusal.
pub(super) async fn checked(response: reqwest::Response) -> Result<reqwest::Response, ApiError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.bytes().await.unwrap_or_default();
    let (code, words) = match serde_json::from_slice::<Refusal>(&body) {
        Ok(refusal) => {
            let fields: Vec<String> =
                refusal.errors.iter().map(|e| format!(" {}: {}.", e.pointer, e.detail)).collect();
            let words = format!("refused ({}): {}{}", refusal.code, refusal.detail, fields.concat());
            (refusal.code, words)
        }
        Err(_) => (String::new(), format!("refused with status {status}")),
    };
    let may_work_later = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    if may_work_later.contains(&status) || code == "idempotency_key_in_flight" {
        Err(ApiError::Transient(words))
    } else {
        Err(ApiError::Permanent(words))
    }
}
