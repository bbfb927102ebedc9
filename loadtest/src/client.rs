//! A lean HTTP/1.1 client: one connection that is kept open. What the load generator costs is missing to the server, where both
//! run on one machine, so nothing is done here that is not needed.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, Uri, client::conn::http1::SendRequest, header::HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// Answers are longer only if something is wrong.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} is not of the form http://host:port")]
    Url(String),
    #[error("{0} cannot be reached: {1}")]
    Connect(String, std::io::Error),
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("the answer could not be read: {0}")]
    Unreadable(String),
    #[error("the request cannot be sent: {0}")]
    Request(#[from] hyper::http::Error),
}

impl Error {
    /// In a word or two, to be counted by.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connect(..) => "not reached",
            Self::Broken(_) => "connection broke",
            Self::Late(_) => "no answer in time",
            Self::Unreadable(_) => "unreadable",
            Self::Url(_) | Self::Request(_) => "not sent",
        }
    }
}

/// The service to be asked, and as whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port`
    authority: String,
    authorization: HeaderValue,
    deadline: Duration,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    /// With the query.
    pub path: String,
    /// JSON; empty for none.
    pub body: Bytes,
    /// Answers from the service's cache will not do.
    pub no_cache: bool,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

/// A connection, opened when it is first needed and again after it broke.
pub struct Connection {
    target: Target,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Target {
    /// # Errors
    /// When the address or the key is malformed.
    pub fn new(url: &str, key: &str, deadline: Duration) -> Result<Self, Error> {
        let wrong = || Error::Url(url.to_owned());
        let uri: Uri = url.trim_end_matches('/').parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        if uri.scheme_str() != Some("http") || uri.path().len() > 1 {
            return Err(wrong());
        }
        let port = authority.port_u16().unwrap_or(80);
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {key}")).map_err(hyper::http::Error::from)?;
        authorization.set_sensitive(true);
        Ok(Self { authority: format!("{}:{port}", authority.host()), authorization, deadline })
    }

    pub fn connection(&self) -> Connection {
        Connection { target: self.clone(), open: None }
    }
}

impl Connection {
    /// # Errors
    /// When there is no answer within the deadline. Any status is an answer.
    pub async fn ask(&mut self, call: &Call) -> Result<Answer, Error> {
        let deadline = self.target.deadline;
        let answer = timeout(deadline, self.attempt(call)).await.unwrap_or(Err(Error::Late(deadline)));
        if answer.is_err() {
            self.open = None;
        }
        answer
    }

    async fn attempt(&mut self, call: &Call) -> Result<Answer, Error> {
        let mut request = Request::builder()
            .method(&call.method)
            .uri(&call.path)
            .header("host", &self.target.authority)
            .header("authorization", &self.target.authorization);
        if !call.body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if call.no_cache {
            request = request.header("cache-control", "no-cache");
        }
        let request = request.body(Full::new(call.body.clone()))?;
        let is_open = match &mut self.open {
            Some(open) => open.ready().await.is_ok(),
            None => false,
        };
        let connection = match &mut self.open {
            Some(open) if is_open => open,
            closed => closed.insert(connect(&self.target.authority).await?),
        };
        let (head, body) = connection.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| Error::Unreadable(error.to_string()))?.to_bytes();
        Ok(Answer { status: head.status, body })
    }
}

async fn connect(authority: &str) -> Result<SendRequest<Full<Bytes>>, Error> {
    let unreachable = |error| Error::Connect(authority.to_owned(), error);
    let stream = TcpStream::connect(authority).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the connection.
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let target = |url: &str| Target::new(url, "ctx_key", Duration::from_secs(1));
        assert_eq!(target("http://127.0.0.1:8000/").unwrap().authority, "127.0.0.1:8000");
        assert_eq!(target("http://localhost").unwrap().authority, "localhost:80");
        for wrong in ["", "localhost:8000", "https://localhost", "http://localhost/v1", "http://"] {
            assert!(matches!(target(wrong), Err(Error::Url(_))), "{wrong}");
        }
        assert!(Target::new("http://localhost", "a\nb", Duration::from_secs(1)).is_err());
    }
}
