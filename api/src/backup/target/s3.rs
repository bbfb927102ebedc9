//! A bucket of S3 or of a storage that speaks as it does. Dumps go there in parts while they are made, so that they need neither
//! memory nor a disk here; what is not completed is no file.

use std::{fmt, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, header::ETAG};
use rusty_s3::{
    Bucket, Credentials, S3Action, UrlStyle,
    actions::{
        AbortMultipartUpload, CompleteMultipartUpload, CreateMultipartUpload, DeleteObject, GetObject,
        ListObjectsV2, PutObject, UploadPart,
    },
};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use crate::backup::{Failure, Result, Stage, failure::In};

/// How to reach a bucket.
#[derive(Clone, Debug)]
pub struct S3Options {
    pub endpoint: Url,
    pub bucket: String,
    /// Before every name, without a slash at its end; may be empty.
    pub prefix: String,
    pub region: String,
    pub access_key: String,
    pub secret_key: SecretString,
    /// Whether the bucket stands in the path, as most storages but Amazon's want it.
    pub path_style: bool,
}

#[derive(Clone)]
pub struct S3 {
    client: Client,
    bucket: Bucket,
    credentials: Credentials,
    prefix: String,
}

/// A file of which some parts are there.
pub(in crate::backup) struct S3Upload {
    s3: S3,
    key: String,
    upload_id: String,
    etags: Vec<String>,
    /// Less than a part.
    waiting: BytesMut,
}

/// Of a part; the smallest that S3 takes is five. There may be 10,000 parts, so the later ones are larger: 580 GB at most.
const PART_BYTES: usize = 8 << 20;
const LATER_PART_BYTES: usize = 64 << 20;
const SMALL_PARTS: usize = 1_000;
const PARTS_MAX: usize = 10_000;

/// How long a signature is good for: longer than any request here takes.
const SIGNED_FOR: Duration = Duration::from_secs(3_600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two bytes of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// For a request without a body to speak of.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// For a part.
const PART_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Bytes of an answer of the storage itself; a page of a list has a thousand names.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Of what the storage says when it refuses.
const COMPLAINT_CHARS_MAX: usize = 300;

/// Not an answer, or not this time.
enum Refusal {
    /// Worth another try.
    Passing(String),
    NotFound(String),
    Final(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Passing(words) | Self::NotFound(words) | Self::Final(words)) = self;
        write!(f, "The storage {words}")
    }
}

impl S3 {
    pub(super) fn new(options: &S3Options) -> Result<Self> {
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build()
            .in_stage(Stage::Storage)?;
        let style = if options.path_style { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let bucket =
            Bucket::new(options.endpoint.clone(), style, options.bucket.clone(), options.region.clone())
                .map_err(|error| {
                    Failure::new(
                        Stage::Storage,
                        format!("BACKUP_TARGET or BACKUP_S3_ENDPOINT cannot be used: {error}."),
                    )
                })?;
        let credentials = Credentials::new(&options.access_key, options.secret_key.expose_secret());
        Ok(Self { client, bucket, credentials, prefix: options.prefix.clone() })
    }

    fn key(&self, file: &str) -> String {
        if self.prefix.is_empty() { file.to_owned() } else { format!("{}/{file}", self.prefix) }
    }

    /// Sends until there is an answer that will not change.
    async fn send(&self, request: impl Fn() -> RequestBuilder) -> Result<Response, Refusal> {
        let tries = || async { settle(request().send().await).await };
        tries
            .retry(ExponentialBuilder::default().with_jitter().with_max_times(5))
            .when(|refusal| matches!(refusal, Refusal::Passing(_)))
            .notify(
                |refusal, pause| tracing::warn!(%refusal, ?pause, "the storage of backups is asked again"),
            )
            .await
    }

    async fn text(&self, request: impl Fn() -> RequestBuilder) -> Result<String> {
        let response = self.send(request).await.in_stage(Stage::Storage)?;
        whole(response).await
    }

    pub(super) async fn begin(&self, file: &str) -> Result<S3Upload> {
        let key = self.key(file);
        let url = CreateMultipartUpload::new(&self.bucket, Some(&self.credentials), &key).sign(SIGNED_FOR);
        let answer = self.text(|| self.client.post(url.clone()).timeout(REQUEST_TIMEOUT)).await?;
        let upload_id =
            CreateMultipartUpload::parse_response(&answer).in_stage(Stage::Storage)?.upload_id().to_owned();
        Ok(S3Upload { s3: self.clone(), key, upload_id, etags: Vec::new(), waiting: BytesMut::new() })
    }

    pub(super) async fn read(&self, file: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        let key = self.key(file);
        let url = GetObject::new(&self.bucket, Some(&self.credentials), &key).sign(SIGNED_FOR);
        let response = self.send(|| self.client.get(url.clone())).await;
        let response =
            response.map_err(|refusal| Failure::new(Stage::Storage, format!("{file}: {refusal}")))?;
        let stream = response.bytes_stream().map_err(|error| std::io::Error::other(error.without_url()));
        Ok(Box::new(StreamReader::new(Box::pin(stream))))
    }

    pub(super) async fn put(&self, file: &str, bytes: &[u8]) -> Result<()> {
        let (key, bytes) = (self.key(file), Bytes::copy_from_slice(bytes));
        let url = PutObject::new(&self.bucket, Some(&self.credentials), &key).sign(SIGNED_FOR);
        let put = || self.client.put(url.clone()).timeout(REQUEST_TIMEOUT).body(bytes.clone());
        self.send(put).await.in_stage(Stage::Storage).map(|_| ())
    }

    pub(super) async fn list(&self, files_max: usize) -> Result<Vec<String>> {
        let prefix = self.key("");
        let (mut files, mut next) = (Vec::new(), None);
        while files.len() < files_max {
            let mut list = ListObjectsV2::new(&self.bucket, Some(&self.credentials));
            list.with_prefix(prefix.as_str());
            if let Some(token) = next.take() {
                list.with_continuation_token(token);
            }
            let url = list.sign(SIGNED_FOR);
            let answer = self.text(|| self.client.get(url.clone()).timeout(REQUEST_TIMEOUT)).await?;
            let page = ListObjectsV2::parse_response(&answer).in_stage(Stage::Storage)?;
            let empty = page.contents.is_empty();
            let names = page.contents.into_iter().map(|object| object.key);
            files.extend(names.filter_map(|key| key.strip_prefix(&prefix).map(str::to_owned)));
            match page.next_continuation_token {
                Some(token) if !empty => next = Some(token),
                _ => break,
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    pub(super) async fn remove(&self, file: &str) -> Result<()> {
        let key = self.key(file);
        let url = DeleteObject::new(&self.bucket, Some(&self.credentials), &key).sign(SIGNED_FOR);
        match self.send(|| self.client.delete(url.clone()).timeout(REQUEST_TIMEOUT)).await {
            Ok(_) | Err(Refusal::NotFound(_)) => Ok(()),
            Err(refusal) => Err(Failure::new(Stage::Storage, refusal)),
        }
    }
}

impl S3Upload {
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.waiting.extend_from_slice(bytes);
        let part = if self.etags.len() < SMALL_PARTS { PART_BYTES } else { LATER_PART_BYTES };
        while self.waiting.len() >= part {
            let bytes = self.waiting.split_to(part).freeze();
            self.send_part(bytes).await?;
        }
        Ok(())
    }

    async fn send_part(&mut self, bytes: Bytes) -> Result<()> {
        let number = self.etags.len() + 1;
        if number > PARTS_MAX {
            return Err(Failure::new(Stage::Storage, "The dump is larger than S3 takes in 10,000 parts."));
        }
        let S3 { bucket, credentials, client, .. } = &self.s3;
        let part = UploadPart::new(bucket, Some(credentials), &self.key, number as u16, &self.upload_id);
        let url = part.sign(SIGNED_FOR);
        let put = || client.put(url.clone()).timeout(PART_TIMEOUT).body(bytes.clone());
        let response = self.s3.send(put).await.in_stage(Stage::Storage)?;
        let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
        let etag = etag.ok_or_else(|| {
            Failure::new(Stage::Storage, "The storage has acknowledged a part without an ETag.")
        })?;
        self.etags.push(etag.to_owned());
        Ok(())
    }

    pub(super) async fn finish(mut self) -> Result<()> {
        let finished = self.complete().await;
        if finished.is_err() {
            self.abort().await;
        }
        finished
    }

    async fn complete(&mut self) -> Result<()> {
        let rest = self.waiting.split().freeze();
        // There is always a part, be it empty.
        if !rest.is_empty() || self.etags.is_empty() {
            self.send_part(rest).await?;
        }
        let S3 { bucket, credentials, client, .. } = &self.s3;
        let etags = self.etags.iter().map(String::as_str);
        let complete =
            CompleteMultipartUpload::new(bucket, Some(credentials), &self.key, &self.upload_id, etags);
        let (url, body) = (complete.sign(SIGNED_FOR), complete.body());
        // Putting the parts together may take the storage a while.
        let answer =
            self.s3.text(|| client.post(url.clone()).timeout(PART_TIMEOUT).body(body.clone())).await?;
        // It may fail after it has answered 200. Storages differ in what they call the rest.
        if answer.contains("<ETag>") && !answer.contains("<Error>") {
            return Ok(());
        }
        Err(Failure::new(
            Stage::Storage,
            format!("The storage did not put the parts together: {}", clip(&answer)),
        ))
    }

    pub(super) async fn abort(self) {
        let S3 { bucket, credentials, client, .. } = &self.s3;
        let abort = AbortMultipartUpload::new(bucket, Some(credentials), &self.key, &self.upload_id);
        let url = abort.sign(SIGNED_FOR);
        if let Err(refusal) = self.s3.send(|| client.delete(url.clone()).timeout(REQUEST_TIMEOUT)).await
            && !matches!(refusal, Refusal::NotFound(_))
        {
            tracing::warn!(%refusal, "parts of a backup that was given up stay in the storage");
        }
    }
}

/// What an answer means. Never with its URL, which holds a signature.
async fn settle(sent: reqwest::Result<Response>) -> Result<Response, Refusal> {
    let response = sent.map_err(|error| Refusal::Passing(format!("does not answer: {}.", told(error))))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let words = whole(response).await.unwrap_or_default();
    let words = format!("answers {status}: {}", clip(&words));
    Err(match status {
        StatusCode::NOT_FOUND => Refusal::NotFound(words),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Refusal::Passing(words),
        status if status.is_server_error() => Refusal::Passing(words),
        _ => Refusal::Final(words),
    })
}

/// An error with its causes, without the URL.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

fn clip(text: &str) -> String {
    text.chars().take(COMPLAINT_CHARS_MAX).collect()
}

async fn whole(mut response: Response) -> Result<String> {
    let mut bytes = Vec::new();
    let chunk = |response: Result<Option<Bytes>, reqwest::Error>| {
        response.map_err(|error| {
            Failure::new(Stage::Storage, format!("The storage's answer broke off: {}.", told(error)))
        })
    };
    while let Some(part) = chunk(response.chunk().await)? {
        bytes.extend_from_slice(&part);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(Failure::new(Stage::Storage, "The storage's answer has no end."));
        }
    }
    String::from_utf8(bytes).in_stage(Stage::Storage)
}
