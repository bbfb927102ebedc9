//! Where backups are kept: files by their names, in a folder or under a prefix of a bucket. A file appears whole or not at all.

mod folder;
mod s3;

use std::{path::PathBuf, sync::Arc};

use tokio::io::{AsyncRead, AsyncReadExt};

pub use self::s3::S3Options;
use self::{
    folder::{Folder, FolderUpload},
    s3::{S3, S3Upload},
};
use super::{Failure, Result, Stage, failure::In};

/// Files that are looked at; far more than any retention keeps.
const FILES_MAX: usize = 100_000;

/// Where backups are to be kept.
#[derive(Clone, Debug)]
pub enum TargetOptions {
    Folder(PathBuf),
    S3(S3Options),
}

/// Where backups are kept. Cheap to clone.
#[derive(Clone)]
pub enum Target {
    Folder(Folder),
    S3(Arc<S3>),
}

/// A file on its way. Whoever does not finish it aborts it; one that is dropped leaves as little as it can.
pub(super) enum Upload {
    Folder(FolderUpload),
    S3(S3Upload),
}

impl Target {
    pub(super) fn new(options: &TargetOptions) -> Result<Self> {
        Ok(match options {
            TargetOptions::Folder(path) => Self::Folder(Folder::new(path.clone())),
            TargetOptions::S3(options) => Self::S3(Arc::new(S3::new(options)?)),
        })
    }

    pub(super) async fn begin(&self, file: &str) -> Result<Upload> {
        Ok(match self {
            Self::Folder(folder) => Upload::Folder(folder.begin(file).await?),
            Self::S3(s3) => Upload::S3(s3.begin(file).await?),
        })
    }

    /// None when it is not there.
    pub(super) async fn read(&self, file: &str) -> Result<Option<Box<dyn AsyncRead + Send + Unpin>>> {
        match self {
            Self::Folder(folder) => folder.read(file).await,
            Self::S3(s3) => s3.read(file).await,
        }
    }

    /// A file of at most `bytes_max`; none when it is not there.
    pub(super) async fn read_small(&self, file: &str, bytes_max: u64) -> Result<Option<Vec<u8>>> {
        let Some(reader) = self.read(file).await? else { return Ok(None) };
        let mut bytes = Vec::new();
        reader.take(bytes_max + 1).read_to_end(&mut bytes).await.in_stage(Stage::Storage)?;
        if bytes.len() as u64 > bytes_max {
            return Err(Failure::new(Stage::Storage, format!("{file} has more than {bytes_max} bytes.")));
        }
        Ok(Some(bytes))
    }

    /// A small file, in place of the one of that name.
    pub(super) async fn put(&self, file: &str, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Folder(folder) => {
                let mut upload = folder.begin(file).await?;
                upload.write(bytes).await?;
                upload.finish().await
            }
            Self::S3(s3) => s3.put(file, bytes).await,
        }
    }

    /// The names of all files.
    pub(super) async fn list(&self) -> Result<Vec<String>> {
        let files = match self {
            Self::Folder(folder) => folder.list(FILES_MAX).await,
            Self::S3(s3) => s3.list(FILES_MAX).await,
        }?;
        if files.len() >= FILES_MAX {
            return Err(Failure::new(
                Stage::Storage,
                format!(
                    "There are more than {FILES_MAX} files. Give the backups a place of their own with BACKUP_TARGET."
                ),
            ));
        }
        Ok(files)
    }

    /// Removes a file; one that is not there is removed already.
    pub(super) async fn remove(&self, file: &str) -> Result<()> {
        match self {
            Self::Folder(folder) => folder.remove(file).await,
            Self::S3(s3) => s3.remove(file).await,
        }
    }

    /// Removes what processes that were killed left half written, as far as it can be told. Only while no backup is made.
    pub(super) async fn remove_halves(&self) -> Result<()> {
        match self {
            Self::Folder(folder) => folder.remove_halves().await,
            // Parts that nobody completes are no files; a rule of the bucket removes them.
            Self::S3(_) => Ok(()),
        }
    }
}

impl Upload {
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Folder(upload) => upload.write(bytes).await,
            Self::S3(upload) => upload.write(bytes).await,
        }
    }

    /// The file is there, whole and durable.
    pub(super) async fn finish(self) -> Result<()> {
        match self {
            Self::Folder(upload) => upload.finish().await,
            Self::S3(upload) => upload.finish().await,
        }
    }

    /// Nothing is there.
    pub(super) async fn abort(self) {
        match self {
            Self::Folder(upload) => drop(upload),
            Self::S3(upload) => upload.abort().await,
        }
    }
}
