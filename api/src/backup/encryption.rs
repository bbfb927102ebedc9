//! Encryption of dumps with age: to public keys, so that the machine that makes backups need not be able to read them.

use std::{fmt, str::FromStr, sync::Arc};

use age::{
    DecryptError, Decryptor, Encryptor,
    x25519::{Identity, Recipient},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::compat::{
    FuturesAsyncReadCompatExt, FuturesAsyncWriteCompatExt, TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt,
};

use super::{Failure, Result, Stage, failure::In};

/// Keys for and against reading.
#[derive(Clone, Default)]
pub struct Encryption {
    recipients: Arc<[Recipient]>,
    identities: Arc<[Identity]>,
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (recipients, identities) = (self.recipients.len(), self.identities.len());
        f.debug_struct("Encryption")
            .field("recipients", &recipients)
            .field("identities", &identities)
            .finish()
    }
}

/// The keys of a text as `age-keygen` writes them: one per line, or separated by commas, with comments.
fn keys<K: FromStr>(text: &str) -> std::result::Result<Arc<[K]>, ()> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let words = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|word| !word.is_empty());
    let keys = words.map(|word| word.parse().map_err(|_| ())).collect::<std::result::Result<Vec<K>, ()>>()?;
    Ok(keys.into())
}

impl Encryption {
    /// Encrypts for these public keys (`age1…`).
    ///
    /// # Errors
    /// A complaint that completes "must be …".
    pub fn with_recipients(self, text: &str) -> std::result::Result<Self, &'static str> {
        let recipients = keys(text)
            .map_err(|()| "must be public keys of age, such as age1…, separated by commas or lines")?;
        Ok(Self { recipients, ..self })
    }

    /// Reads what was encrypted for these secret keys (`AGE-SECRET-KEY-1…`).
    ///
    /// # Errors
    /// A complaint that completes "must be …" and does not repeat them.
    pub fn with_identities(self, text: &str) -> std::result::Result<Self, &'static str> {
        let identities = keys(text)
            .map_err(|()| "must be secret keys of age, such as age-keygen writes: AGE-SECRET-KEY-1…")?;
        Ok(Self { identities, ..self })
    }

    /// Whether what is written is encrypted.
    pub fn encrypts(&self) -> bool {
        !self.recipients.is_empty()
    }

    /// Whether anything that is encrypted can be read.
    pub fn decrypts(&self) -> bool {
        !self.identities.is_empty()
    }

    /// Copies all of `plain` to `stored`, encrypted if it is to be.
    pub(super) async fn seal(
        &self,
        mut plain: impl AsyncRead + Unpin,
        mut stored: impl AsyncWrite + Unpin,
    ) -> Result<()> {
        if self.encrypts() {
            let recipients = self.recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
            let encryptor = Encryptor::with_recipients(recipients).in_stage(Stage::Dump)?;
            let sealed =
                encryptor.wrap_async_output((&mut stored).compat_write()).await.in_stage(Stage::Storage)?;
            let mut sealed = sealed.compat_write();
            tokio::io::copy(&mut plain, &mut sealed).await.in_stage(Stage::Storage)?;
            // Writes the last chunk, without which the whole cannot be read.
            sealed.shutdown().await.in_stage(Stage::Storage)?;
        } else {
            tokio::io::copy(&mut plain, &mut stored).await.in_stage(Stage::Storage)?;
            stored.shutdown().await.in_stage(Stage::Storage)?;
        }
        Ok(())
    }

    /// Reads what was sealed.
    pub(super) async fn open<'a>(
        &self,
        encrypted: bool,
        stored: impl AsyncRead + Send + Unpin + 'a,
    ) -> Result<Box<dyn AsyncRead + Send + Unpin + 'a>> {
        if !encrypted {
            return Ok(Box::new(stored));
        }
        if !self.decrypts() {
            return Err(Failure::new(
                Stage::Storage,
                "The backup is encrypted. Set BACKUP_AGE_IDENTITY to a secret key that it was encrypted for.",
            ));
        }
        let decryptor = Decryptor::new_async(stored.compat()).await.map_err(|error| unreadable(&error))?;
        let identities = self.identities.iter().map(|identity| identity as &dyn age::Identity);
        let plain = decryptor.decrypt_async(identities).map_err(|error| unreadable(&error))?;
        Ok(Box::new(plain.compat()))
    }
}

fn unreadable(error: &DecryptError) -> Failure {
    match error {
        DecryptError::NoMatchingKeys => Failure::new(
            Stage::Storage,
            "The backup was encrypted for other keys than that of BACKUP_AGE_IDENTITY. Set the right one.",
        ),
        error => Failure::new(Stage::Storage, format!("The backup cannot be decrypted: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret;
    use tokio::io::AsyncReadExt;

    use super::*;

    fn pair() -> (String, String) {
        let identity = Identity::generate();
        (identity.to_public().to_string(), identity.to_string().expose_secret().to_owned())
    }

    async fn sealed(encryption: &Encryption, plain: &[u8]) -> Vec<u8> {
        let mut stored = Vec::new();
        encryption.seal(plain, &mut stored).await.unwrap();
        stored
    }

    async fn opened(encryption: &Encryption, stored: &[u8]) -> std::result::Result<Vec<u8>, String> {
        let mut plain = Vec::new();
        let mut reader = encryption.open(true, stored).await.map_err(|failure| failure.to_string())?;
        reader.read_to_end(&mut plain).await.map_err(|error| error.to_string())?;
        Ok(plain)
    }

    #[tokio::test]
    async fn what_is_sealed_is_read_by_each_of_its_keys_and_by_no_other() {
        let plain: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let ((first, secret), (second, other_secret), (_, foreign)) = (pair(), pair(), pair());
        let writer =
            Encryption::default().with_recipients(&format!("{first},\n# a comment\n{second}")).unwrap();
        let stored = sealed(&writer, &plain).await;
        assert!(stored.starts_with(b"age-encryption.org/v1") && stored.len() > plain.len());
        for secret in [secret, format!("# created: today\n{other_secret}\n")] {
            let reader = Encryption::default().with_identities(&secret).unwrap();
            assert_eq!(opened(&reader, &stored).await.unwrap(), plain);
            let cut = opened(&reader, &stored[..stored.len() - 100]).await;
            assert!(cut.is_err(), "the end is missing");
        }
        let stranger = Encryption::default().with_identities(&foreign).unwrap();
        assert!(opened(&stranger, &stored).await.unwrap_err().contains("for other keys"));
        assert!(opened(&writer, &stored).await.unwrap_err().contains("BACKUP_AGE_IDENTITY"));
        assert!(!format!("{stranger:?}").contains("SECRET"));
    }

    #[tokio::test]
    async fn without_keys_it_is_what_it_was() {
        assert_eq!(sealed(&Encryption::default(), b"plain").await, b"plain");
        assert!(Encryption::default().with_recipients("age1nonsense").is_err());
        assert!(Encryption::default().with_identities("hunter2").is_err());
    }
}
