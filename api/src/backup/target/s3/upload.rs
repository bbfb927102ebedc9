//! A dump on its way into a bucket, in parts.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::ETAG;
use rusty_s3::{
    S3Action,
    actions::{AbortMultipartUpload, CompleteMultipartUpload, UploadPart},
};

use super::{
    REQUEST_TIMEOUT, S3, SIGNED_FOR,
    answer::{Refusal, clip},
};
use crate::backup::{Failure, Result, Stage, failure::In};

/// Of a part; the smallest that S3 takes is five. There may be 10,000 parts, so the later ones are larger: 580 GB at most.
const PART_BYTES: usize = 8 << 20;
const LATER_PART_BYTES: usize = 64 << 20;
const SMALL_PARTS: usize = 1_000;
const PARTS_MAX: usize = 10_000;
/// For a part.
const PART_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// For giving parts up: whoever stops the process does not wait for ever.
const ABORT_MAX: Duration = Duration::from_secs(10);

/// A file of which some parts are there.
pub(in crate::backup) struct S3Upload {
    pub(super) s3: S3,
    pub(super) key: String,
    pub(super) upload_id: String,
    pub(super) etags: Vec<String>,
    /// Bytes of the parts that are there.
    pub(super) stored: u64,
    /// Less than a part.
    pub(super) waiting: BytesMut,
}

impl S3Upload {
    pub(in crate::backup) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
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
        self.stored += bytes.len() as u64;
        Ok(())
    }

    pub(in crate::backup) async fn finish(mut self) -> Result<()> {
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
        let answer = self.s3.text(|| client.post(url.clone()).timeout(PART_TIMEOUT).body(body.clone())).await;
        let complaint = match answer {
            // It may fail after it has answered 200. Storages differ in what they call the rest.
            Ok(answer) if answer.contains("<ETag>") && !answer.contains("<Error>") => return Ok(()),
            Ok(answer) => Failure::new(
                Stage::Storage,
                format!("The storage did not put the parts together: {}", clip(&answer)),
            ),
            Err(failure) => failure,
        };
        // Where the answer was lost, or asked for twice, it has done so all the same.
        match self.s3.size(&self.key).await {
            Ok(Some(bytes)) if bytes == self.stored => Ok(()),
            _ => Err(complaint),
        }
    }

    pub(in crate::backup) async fn abort(self) {
        let S3 { bucket, credentials, client, .. } = &self.s3;
        let abort = AbortMultipartUpload::new(bucket, Some(credentials), &self.key, &self.upload_id);
        let url = abort.sign(SIGNED_FOR);
        let aborting = self.s3.send(|| client.delete(url.clone()).timeout(REQUEST_TIMEOUT));
        let complaint = match tokio::time::timeout(ABORT_MAX, aborting).await {
            Ok(Ok(_) | Err(Refusal::NotFound(_))) => return,
            Ok(Err(refusal)) => refusal.to_string(),
            Err(_) => "The storage does not answer in time.".to_owned(),
        };
        tracing::warn!(complaint, "parts of a backup that was given up stay in the storage");
    }
}
