//! A bucket of S3 or of a storage that speaks as it does. Dumps go there in parts while they are made, so that they need neither
//! memory nor a disk here; what is not completed is no file.

mod answer;
mod upload;

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use bytes::{Bytes, BytesMut};
use futures_util::stream::try_unfold;
use reqwest::{
    Client, RequestBuilder, Response, StatusCode, Url,
    header::{CONTENT_LENGTH, ETAG, HeaderValue, IF_MATCH, RANGE},
};
use rusty_s3::{
    Bucket, Credentials, S3Action, UrlStyle,
    actions::{CreateMultipartUpload, DeleteObject, GetObject, HeadObject, ListObjectsV2, PutObject},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use self::answer::{Refusal, settle, told, whole};
pub(in crate::backup) use self::upload::S3Upload;
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

/// How long a signature is good for: longer than any request here takes, with all its repetitions.
const SIGNED_FOR: Duration = Duration::from_secs(2 * 3_600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two bytes of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// For a request without a body to speak of.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the rest of one object is asked for, where answers break off.
const RESUMED_MAX: usize = 20;
/// Of a list; a page has a thousand names, or fewer.
const PAGES_MAX: usize = 1_000;

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
        Ok(S3Upload {
            s3: self.clone(),
            key,
            upload_id,
            etags: Vec::new(),
            stored: 0,
            waiting: BytesMut::new(),
        })
    }

    /// None when it is not there. Where the answer breaks off, the rest is asked for: of a large dump that would happen sooner or later.
    pub(super) async fn read(&self, file: &str) -> Result<Option<Box<dyn AsyncRead + Send + Unpin>>> {
        let first = match self.get(file, 0, None).await {
            Ok(response) => response,
            Err(Refusal::NotFound(_)) => return Ok(None),
            Err(refusal) => return Err(Failure::new(Stage::Storage, format!("{file}: {refusal}"))),
        };
        let etag = first.headers().get(ETAG).cloned();
        let state = (self.clone(), file.to_owned(), etag, first, 0_u64, 0_usize);
        let stream = try_unfold(state, async |(s3, file, etag, mut response, mut read, mut resumed)| {
            loop {
                match response.chunk().await {
                    Ok(Some(bytes)) => {
                        read += bytes.len() as u64;
                        return Ok(Some((bytes, (s3, file, etag, response, read, resumed))));
                    }
                    Ok(None) => return Ok(None),
                    Err(error) if resumed == RESUMED_MAX => return Err(std::io::Error::other(told(error))),
                    Err(error) => {
                        resumed += 1;
                        tracing::warn!(
                            file,
                            read,
                            error = told(error),
                            "an answer of the storage broke off; the rest is asked for"
                        );
                        let rest = s3.get(&file, read, etag.as_ref()).await;
                        response = rest.map_err(|refusal| std::io::Error::other(refusal.to_string()))?;
                    }
                }
            }
        });
        Ok(Some(Box::new(StreamReader::new(Box::pin(stream)))))
    }

    /// From byte `from` on, of the object with this ETag.
    async fn get(&self, file: &str, from: u64, etag: Option<&HeaderValue>) -> Result<Response, Refusal> {
        let key = self.key(file);
        let response = self
            .send(|| {
                // Signed anew each time: a signature grows old while a dump is read.
                let url = GetObject::new(&self.bucket, Some(&self.credentials), &key).sign(SIGNED_FOR);
                let mut request = self.client.get(url);
                if from > 0 {
                    request = request.header(RANGE, format!("bytes={from}-"));
                    request = etag.into_iter().fold(request, |request, etag| request.header(IF_MATCH, etag));
                }
                request
            })
            .await?;
        if from > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(Refusal::Final(format!(
                "does not go on where it stopped, but answers {}.",
                response.status()
            )));
        }
        Ok(response)
    }

    /// Bytes of an object; none when it is not there.
    async fn size(&self, key: &str) -> Result<Option<u64>> {
        let url = HeadObject::new(&self.bucket, Some(&self.credentials), key).sign(SIGNED_FOR);
        match self.send(|| self.client.head(url.clone()).timeout(REQUEST_TIMEOUT)).await {
            Ok(response) => {
                let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
                Ok(length.and_then(|length| length.parse().ok()))
            }
            Err(Refusal::NotFound(_)) => Ok(None),
            Err(refusal) => Err(Failure::new(Stage::Storage, refusal)),
        }
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
        // Also where pages hold nothing of ours, or the storage goes round in circles.
        for _ in 0..PAGES_MAX {
            if files.len() >= files_max {
                return Ok(files);
            }
            let mut list = ListObjectsV2::new(&self.bucket, Some(&self.credentials));
            list.with_prefix(prefix.as_str());
            if let Some(token) = next.take() {
                list.with_continuation_token(token);
            }
            let url = list.sign(SIGNED_FOR);
            let answer = self.text(|| self.client.get(url.clone()).timeout(REQUEST_TIMEOUT)).await?;
            let page = ListObjectsV2::parse_response(&answer).in_stage(Stage::Storage)?;
            let names = page.contents.into_iter().map(|object| object.key);
            files.extend(names.filter_map(|key| key.strip_prefix(&prefix).map(str::to_owned)));
            next = page.next_continuation_token;
            if next.is_none() {
                files.sort_unstable();
                return Ok(files);
            }
        }
        Err(Failure::new(
            Stage::Storage,
            "The list of the bucket has no end. Give the backups a prefix of their own with BACKUP_TARGET.",
        ))
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    const WAIT: Duration = Duration::from_secs(30);

    /// Answers one request after the other with these words, and hangs up after each. Answers the heads of what was asked.
    async fn serve(listener: TcpListener, answers: &[&str]) -> Vec<String> {
        let mut asked = Vec::new();
        for answer in answers {
            let came = tokio::time::timeout(WAIT, listener.accept()).await;
            let (mut socket, _) = came.expect("it asks once more").unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(socket.read_u8().await.unwrap());
            }
            let head = String::from_utf8(request).unwrap().to_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            socket.read_exact(&mut body).await.unwrap();
            asked.push(head);
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    }

    async fn storage() -> (TcpListener, S3) {
        program::provide_tls();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = S3Options {
            endpoint: format!("http://{}", listener.local_addr().unwrap()).parse().unwrap(),
            bucket: "b".to_owned(),
            prefix: String::new(),
            region: "r".to_owned(),
            access_key: "k".to_owned(),
            secret_key: "s".to_owned().into(),
            path_style: true,
        };
        (listener, S3::new(&options).unwrap())
    }

    fn xml(root: &str, members: &str) -> String {
        let body = format!(r#"<{root} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{members}</{root}>"#);
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    }

    // All of these are what a real server does not do on request.

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_taken_up_where_it_stopped() {
        let (listener, s3) = storage().await;
        let answers = [
            "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 10\r\nConnection: close\r\n\r\n0123",
            "HTTP/1.1 206 Partial Content\r\nContent-Length: 6\r\nConnection: close\r\n\r\n45",
            "HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\nConnection: close\r\n\r\n6789",
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n0123",
            // It does not go on, but begins anew.
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n0123456789",
        ];
        let reading = async {
            let (mut whole, mut other) = (String::new(), String::new());
            s3.read("f").await.unwrap().unwrap().read_to_string(&mut whole).await.unwrap();
            assert_eq!(whole, "0123456789");
            let refused = s3.read("f").await.unwrap().unwrap().read_to_string(&mut other).await;
            assert!(refused.unwrap_err().to_string().contains("does not go on"));
        };
        let (asked, ()) = tokio::join!(serve(listener, &answers), reading);
        assert!(!asked[0].contains("range:") && asked[1].contains("range: bytes=4-"), "{asked:?}");
        assert!(asked[2].contains("range: bytes=6-") && asked[2].contains("if-match: \"e\""), "{asked:?}");
    }

    #[tokio::test]
    async fn whether_parts_were_put_together_is_looked_up_when_the_answer_was_lost() {
        let begun = xml("InitiateMultipartUploadResult", "<UploadId>u</UploadId>");
        let part = "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        // And what comes of asking a second time.
        let (lost, gone) =
            ("", "HTTP/1.1 404 Not Found\r\nContent-Length: 12\r\nConnection: close\r\n\r\nNoSuchUpload");
        let there = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
        let shorter = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n";
        let upload = async |s3: &S3| {
            let mut upload = s3.begin("f").await.unwrap();
            upload.write(b"12345").await.unwrap();
            upload.finish().await
        };
        let (listener, s3) = storage().await;
        let answers = [&begun, part, lost, gone, there];
        let (asked, stored) = tokio::join!(serve(listener, &answers), upload(&s3));
        stored.unwrap();
        assert!(asked[4].starts_with("head /b/f"), "{asked:?}");

        let (listener, s3) = storage().await;
        let aborted = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        let answers = [&begun, part, gone, shorter, aborted];
        let (asked, refused) = tokio::join!(serve(listener, &answers), upload(&s3));
        assert!(refused.unwrap_err().detail.contains("NoSuchUpload"));
        assert!(asked[4].starts_with("delete /b/f?") && asked[4].contains("uploadid=u"), "{asked:?}");
    }

    #[tokio::test]
    async fn a_list_without_an_end_is_given_up() {
        let (listener, s3) = storage().await;
        let members = "<IsTruncated>true</IsTruncated><NextContinuationToken>more</NextContinuationToken>";
        let page = xml("ListBucketResult", members);
        let answers = vec![page.as_str(); PAGES_MAX];
        let (_, listed) = tokio::join!(serve(listener, &answers), s3.list(usize::MAX));
        assert!(listed.unwrap_err().detail.contains("has no end"));
    }
}
