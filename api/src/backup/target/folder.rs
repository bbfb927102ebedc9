//! A folder of this machine, or one that is mounted. A file is written under another name and renamed when it is whole.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use tokio::{
    fs::{self, File},
    io::{AsyncRead, AsyncWriteExt},
};

use crate::backup::{Failure, Result, Stage};

const HALF: &str = ".partial";

#[derive(Clone)]
pub struct Folder(PathBuf);

/// A file that is not whole yet; removed when dropped.
pub(in crate::backup) struct FolderUpload {
    file: File,
    half: PathBuf,
    whole: PathBuf,
    finished: bool,
}

fn failed(doing: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Stage::Storage, format!("{} could not be {doing}: {error}.", path.display()))
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) async fn begin(&self, file: &str) -> Result<FolderUpload> {
        fs::create_dir_all(&self.0).await.map_err(|error| failed("made", &self.0, &error))?;
        let (half, whole) = (self.0.join(format!("{file}{HALF}")), self.0.join(file));
        // Everything of everybody is in it.
        let opened = File::options().write(true).create(true).truncate(true).mode(0o600).open(&half).await;
        let file = opened.map_err(|error| failed("made", &half, &error))?;
        Ok(FolderUpload { file, half, whole, finished: false })
    }

    pub(super) async fn read(&self, file: &str) -> Result<Option<Box<dyn AsyncRead + Send + Unpin>>> {
        let path = self.0.join(file);
        match File::open(&path).await {
            Ok(opened) => Ok(Some(Box::new(opened))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, &error)),
        }
    }

    pub(super) async fn list(&self, files_max: usize) -> Result<Vec<String>> {
        let failed = |error| failed("listed", &self.0, &error);
        let mut entries = match fs::read_dir(&self.0).await {
            // The first backup makes it.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut files = Vec::new();
        while let Some(entry) = entries.next_entry().await.map_err(failed)? {
            if let Ok(file) = entry.file_name().into_string()
                && files.len() < files_max
            {
                files.push(file);
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    pub(super) async fn remove(&self, file: &str) -> Result<()> {
        let path = self.0.join(file);
        match fs::remove_file(&path).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("removed", &path, &error)),
            _ => Ok(()),
        }
    }

    pub(super) async fn remove_halves(&self) -> Result<()> {
        for file in self.list(super::FILES_MAX).await? {
            let ours = file.starts_with("context-");
            if ours && file.ends_with(HALF) {
                self.remove(&file).await?;
            }
        }
        Ok(())
    }
}

impl FolderUpload {
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).await.map_err(|error| failed("written", &self.half, &error))
    }

    pub(super) async fn finish(mut self) -> Result<()> {
        let written = async {
            self.file.flush().await?;
            self.file.sync_all().await?;
            fs::rename(&self.half, &self.whole).await?;
            self.finished = true;
            // The name as well.
            let Some(folder) = self.whole.parent() else { return Ok(()) };
            File::open(folder).await?.sync_all().await
        };
        written.await.map_err(|error| failed("written", &self.whole, &error))
    }
}

impl Drop for FolderUpload {
    fn drop(&mut self) {
        if !self.finished {
            // Of the tenth of a millisecond that this takes, nobody is kept.
            std::fs::remove_file(&self.half).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_there_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path().join("made/when/needed"));
        assert!(folder.list(10).await.unwrap().is_empty());
        let mut upload = folder.begin("context-1.dump").await.unwrap();
        upload.write(b"half").await.unwrap();
        assert_eq!(folder.list(10).await.unwrap(), ["context-1.dump.partial"]);
        drop(upload);
        assert!(folder.list(10).await.unwrap().is_empty());
        let mut upload = folder.begin("context-1.dump").await.unwrap();
        upload.write(b"whole").await.unwrap();
        upload.finish().await.unwrap();
        assert_eq!(folder.list(10).await.unwrap(), ["context-1.dump"]);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(place.path().join("made/when/needed/context-1.dump")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn halves_of_killed_processes_go_and_nothing_else_does() {
        let place = tempfile::tempdir().unwrap();
        for file in ["context-1.dump.partial", "context-1.dump", "notes.partial"] {
            std::fs::write(place.path().join(file), "x").unwrap();
        }
        let folder = Folder::new(place.path().to_owned());
        folder.remove_halves().await.unwrap();
        assert_eq!(folder.list(10).await.unwrap(), ["context-1.dump", "notes.partial"]);
    }
}
