//! What is in the storage: which backups, whether they are what they were, and their removal.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt, ReadBuf},
    sync::watch,
};

use super::{
    Backups, Failure, Listed, Manifest, Result, Stage, State,
    failure::{In, step},
    manifest::{MANIFEST_BYTES_MAX, Unusable, file_of, is_name, name_of},
};

/// Manifests that are read at once.
const MANIFESTS_AT_ONCE: usize = 8;
/// Of a dump, between two looks whether to go on.
pub(super) const READ_BYTES: usize = 256 * 1024;

/// What a look at a stored dump showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what was written.
    Sound,
    /// It is not; why.
    Damaged(String),
}

/// What a look at what is listed showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    Known(Verdict),
    /// Why it could not be read, this time. As long as it cannot, it is as good as damaged.
    Unread(String),
}

/// What a look at all that is stored has shown.
#[derive(Default)]
pub(super) struct Look {
    /// Names and reasons.
    pub damaged: Vec<String>,
    /// Whether some of these only could not be read, this time.
    pub is_incomplete: bool,
}

/// Notes what passes by.
pub(super) struct Noted<R> {
    inner: R,
    hash: Sha256,
    bytes: u64,
    /// Whether reading has failed, so that what passed by is not all that there is.
    broke_off: bool,
}

impl<R: AsyncRead + Unpin> AsyncRead for Noted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        if let Err(error) = ready!(Pin::new(&mut self.inner).poll_read(context, buffer)) {
            self.broke_off = true;
            return Poll::Ready(Err(error));
        }
        let new = &buffer.filled()[before..];
        self.hash.update(new);
        self.bytes += new.len() as u64;
        Poll::Ready(Ok(()))
    }
}

impl<R> Noted<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0, broke_off: false }
    }

    /// The length and the checksum of what passed by.
    pub(super) fn sum(self) -> (u64, String) {
        (self.bytes, format!("{:x}", self.hash.finalize()))
    }

    /// Whether it could not be read to its end: then it is not known what is stored.
    pub(super) fn broke_off(&self) -> bool {
        self.broke_off
    }

    /// Whether what passed by is what the manifest says.
    pub(super) fn verdict(self, manifest: &Manifest) -> Verdict {
        let (bytes, sha256) = self.sum();
        if bytes != manifest.bytes {
            Verdict::Damaged(format!("{} has {bytes} bytes instead of {}", manifest.file, manifest.bytes))
        } else if sha256 != manifest.sha256 {
            Verdict::Damaged(format!(
                "the checksum of {} is another one than when it was written",
                manifest.file
            ))
        } else {
            Verdict::Sound
        }
    }
}

impl Backups {
    /// What there is, oldest first. One that cannot be read does not hide the others.
    ///
    /// # Errors
    /// When the storage cannot be listed.
    pub async fn list(&self) -> Result<Vec<Listed>> {
        let files = self.target.list().await?;
        let names = files.iter().filter_map(|file| name_of(file)).map(str::to_owned);
        let listed = stream::iter(names)
            .map(async |name| {
                let manifest = match self.target.read_small(&file_of(&name), MANIFEST_BYTES_MAX).await {
                    Ok(Some(bytes)) => Manifest::parse(&name, &bytes).map_err(Unusable::Wrong),
                    // Somebody has removed it since.
                    Ok(None) => return None,
                    Err(failure) => Err(Unusable::Unread(failure.to_string())),
                };
                Some(Listed { name, manifest })
            })
            .buffered(MANIFESTS_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        Ok(listed)
    }

    /// The backup of that name; `latest` is the newest one that is not known to be bad.
    ///
    /// # Errors
    /// When there is none.
    pub async fn find(&self, name: &str) -> Result<Manifest> {
        if name != "latest" {
            if !is_name(name) {
                return Err(Failure::new(
                    Stage::Storage,
                    format!("`{name}` is no name of a backup. `context-api backup list` shows them."),
                ));
            }
            let bytes =
                self.target.read_small(&file_of(name), MANIFEST_BYTES_MAX).await?.ok_or_else(|| {
                    Failure::new(
                        Stage::Storage,
                        format!(
                            "There is no backup {name}. `context-api backup list` shows those that there are."
                        ),
                    )
                })?;
            return Manifest::parse(name, &bytes)
                .map_err(|reason| Failure::new(Stage::Storage, format!("{name} cannot be used: {reason}.")));
        }
        let listed = self.list().await?;
        let readable = listed.iter().filter_map(|listed| listed.manifest.as_ref().ok());
        let latest = readable
            .filter(|manifest| manifest.state != State::Failed)
            .max_by_key(|manifest| manifest.taken_at)
            .ok_or_else(|| {
                Failure::new(Stage::Storage, "There is no backup that is known to be good, or may be.")
            })?;
        // Who asks for the latest must not get an older one because of a moment in which the storage did not answer. Names are times.
        let newer = listed.iter().filter(|listed| listed.name > latest.name);
        for Listed { name, manifest } in newer {
            if let Err(reason) = manifest {
                return Err(Failure::new(
                    Stage::Storage,
                    format!("{name} is newer, and {reason}. Name the backup that you want."),
                ));
            }
        }
        Ok(latest.clone())
    }

    /// Reads a stored dump and compares it with its checksum.
    ///
    /// # Errors
    /// When the storage cannot be read; a dump that is not there is damaged.
    pub async fn verify(&self, manifest: &Manifest, stop: &watch::Receiver<bool>) -> Result<Verdict> {
        step(Stage::Verify, self.options.step_max, stop, async {
            let Some(file) = self.target.read(&manifest.file).await? else {
                return Ok(Verdict::Damaged(format!("{} is not there", manifest.file)));
            };
            let mut noted = Noted::new(file);
            let mut buffer = vec![0; READ_BYTES];
            while noted.read(&mut buffer).await.in_stage(Stage::Storage)? > 0 {}
            Ok(noted.verdict(manifest))
        })
        .await
    }

    /// Reads what is listed, as far as it can be read.
    ///
    /// # Errors
    /// Only when it is told to stop.
    pub async fn look_at(&self, listed: &Listed, stop: &watch::Receiver<bool>) -> Result<Looked> {
        let manifest = match &listed.manifest {
            Ok(manifest) => manifest,
            Err(Unusable::Wrong(reason)) => return Ok(Looked::Known(Verdict::Damaged(reason.clone()))),
            Err(unread @ Unusable::Unread(_)) => return Ok(Looked::Unread(unread.to_string())),
        };
        match self.verify(manifest, stop).await {
            Ok(verdict) => Ok(Looked::Known(verdict)),
            Err(failure) if failure.stage == Stage::Stopped => Err(failure),
            Err(failure) => Ok(Looked::Unread(format!("it cannot be read: {failure}"))),
        }
    }

    /// Reads all of these. One that cannot be read does not hide the others.
    pub(super) async fn look_at_all(&self, all: &[Listed], stop: &watch::Receiver<bool>) -> Result<Look> {
        let mut look = Look::default();
        for listed in all {
            let (reason, was_read) = match self.look_at(listed, stop).await? {
                Looked::Known(Verdict::Sound) => continue,
                Looked::Known(Verdict::Damaged(reason)) => (reason, true),
                Looked::Unread(reason) => (reason, false),
            };
            // Unless somebody has removed it meanwhile.
            if self.is_there(&listed.name).await? {
                look.damaged.push(format!("{}: {reason}", listed.name));
                look.is_incomplete |= !was_read;
            }
        }
        Ok(look)
    }

    /// Whether there is a backup of that name.
    ///
    /// # Errors
    /// When the storage cannot be read.
    pub(super) async fn is_there(&self, name: &str) -> Result<bool> {
        Ok(self.target.list().await?.contains(&file_of(name)))
    }

    /// Names of those that are not to be kept.
    ///
    /// # Errors
    /// When the storage cannot be read.
    pub async fn outdated(&self) -> Result<Vec<String>> {
        let readable: Vec<Manifest> =
            self.list().await?.into_iter().filter_map(|listed| listed.manifest.ok()).collect();
        Ok(self.options.keep.outdated(&readable))
    }

    /// Removes a backup. Its manifest goes first: what has none is not taken for a backup.
    ///
    /// # Errors
    /// When the storage refuses.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let manifest = self.find(name).await?;
        self.target.remove(&file_of(name)).await?;
        self.target.remove(&manifest.file).await
    }

    /// Removes what is not to be kept; answers the names. One that cannot be removed does not keep the others.
    ///
    /// # Errors
    /// When the storage refuses any, or it takes too long.
    pub async fn prune(&self, stop: &watch::Receiver<bool>) -> Result<Vec<String>> {
        step(Stage::Retention, self.options.step_max, stop, async {
            let (mut removed, mut refused) = (Vec::new(), None);
            for name in self.outdated().await? {
                match self.remove(&name).await {
                    Ok(()) => {
                        tracing::info!(backup = name, "removed a backup that is not to be kept");
                        removed.push(name);
                    }
                    Err(failure) => refused = refused.or(Some(failure)),
                }
            }
            refused.map_or(Ok(removed), Err)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some bytes, and then an error.
    struct Breaking(&'static [u8]);

    impl AsyncRead for Breaking {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            let bytes = std::mem::take(&mut self.0);
            buffer.put_slice(bytes);
            Poll::Ready(if bytes.is_empty() { Err(std::io::Error::other("it broke off")) } else { Ok(()) })
        }
    }

    #[tokio::test]
    async fn what_breaks_off_is_told_from_what_is_short() {
        let mut buffer = Vec::new();
        let mut breaking = Noted::new(Breaking(b"half"));
        assert!(breaking.read_to_end(&mut buffer).await.is_err() && breaking.broke_off());
        let mut short = Noted::new(&b"half"[..]);
        assert!(short.read_to_end(&mut buffer).await.is_ok() && !short.broke_off());
    }
}
