//! API keys: what they look like, what they allow, and how they are kept (only as a hash).

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use sha2::{Digest, Sha256};
use strum::{EnumIter, IntoEnumIterator, IntoStaticStr};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{TenantId, limits::API_KEY_NAME_CHARS_MAX};
use crate::error::{Code, Error, Result};

/// What a key may do. `admin` does not include the others: a key names each scope that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, EnumIter, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Scope {
    Read,
    Write,
    Admin,
}

impl Scope {
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Every scope there is, in the order of declaration.
    pub fn all() -> Vec<Self> {
        Self::iter().collect()
    }
}

impl FromStr for Scope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::iter().find(|scope| scope.as_str() == text).ok_or_else(|| {
            Error::invalid("/scopes", format!("`{text}` is no scope; use read, write or admin"))
        })
    }
}

/// A secret API key: `ctx_` and 32 random bytes as base64url, or one that an operator chose.
#[derive(Clone, Debug)]
pub struct ApiKey(SecretString);

/// What the database keeps of a key: SHA-256. A key has 256 bits of randomness, so a slow hash would add nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ApiKeyHash([u8; 32]);

impl ApiKey {
    const START: &'static str = "ctx_";
    /// `ctx_` and 20 characters: less could be guessed.
    const CHARS_MIN: usize = 24;
    const CHARS_MAX: usize = 200;
    /// Characters of a key that are shown to tell keys apart: `ctx_` and 8.
    const PREFIX_CHARS: usize = 12;

    /// A new random key.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> Result<Self> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(|error| Error::internal(error.to_string()))?;
        Ok(Self(format!("{}{}", Self::START, URL_SAFE_NO_PAD.encode(bytes)).into()))
    }

    /// The first characters, which may be shown and logged.
    pub fn prefix(&self) -> &str {
        &self.expose()[..Self::PREFIX_CHARS]
    }

    pub fn hash(&self) -> ApiKeyHash {
        ApiKeyHash(Sha256::digest(self.expose()).into())
    }

    /// The whole key; for the one moment in which its owner is told.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl FromStr for ApiKey {
    type Err = Error;

    /// The error never repeats the text: it may be a mistyped secret.
    fn from_str(text: &str) -> Result<Self> {
        let well_formed = text.starts_with(Self::START)
            && (Self::CHARS_MIN..=Self::CHARS_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        if well_formed {
            Ok(Self(text.to_owned().into()))
        } else {
            Err(Error::new(
                Code::InvalidApiKey,
                format!(
                    "An API key starts with `{}`, has {} to {} characters, and only letters, digits, `-` and `_`.",
                    Self::START,
                    Self::CHARS_MIN,
                    Self::CHARS_MAX
                ),
            ))
        }
    }
}

impl ApiKeyHash {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ApiKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyHash(…)")
    }
}

/// A key to be made.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    pub name: String,
    pub scopes: Vec<Scope>,
    pub expires_at: Option<OffsetDateTime>,
}

impl NewApiKey {
    /// # Errors
    /// [`Code::InvalidRequest`] for an empty or long name, or no scope.
    pub fn new(name: &str, mut scopes: Vec<Scope>, expires_at: Option<OffsetDateTime>) -> Result<Self> {
        let name = name.trim();
        if name.is_empty() || name.chars().count() > API_KEY_NAME_CHARS_MAX || name.contains('\0') {
            return Err(Error::invalid(
                "/name",
                format!("must have 1 to {API_KEY_NAME_CHARS_MAX} characters"),
            ));
        }
        if scopes.is_empty() {
            return Err(Error::invalid("/scopes", "must name at least one of read, write and admin"));
        }
        scopes.sort_by_key(|scope| scope.as_str());
        scopes.dedup();
        Ok(Self { name: name.to_owned(), scopes, expires_at })
    }
}

/// A key as it can be shown: everything but the secret.
#[derive(Clone, Debug, Serialize)]
pub struct ApiKeyInfo {
    pub id: Uuid,
    pub name: String,
    pub prefix: String,
    pub scopes: Vec<Scope>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
}

/// Who is calling: a key that was verified, and the tenant it is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub tenant: TenantId,
    pub api_key: Uuid,
    pub scopes: Vec<Scope>,
}

impl Principal {
    /// # Errors
    /// [`Code::MissingScope`] when the key does not have `scope`.
    pub fn require(&self, scope: Scope) -> Result<()> {
        if self.scopes.contains(&scope) {
            Ok(())
        } else {
            Err(Error::new(
                Code::MissingScope,
                format!("This API key lacks the scope `{}`, which the route needs.", scope.as_str()),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_keys_parse_differ_and_stay_out_of_debug() {
        let (a, b) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
        assert_ne!(a.hash(), b.hash());
        assert_eq!(a.expose().parse::<ApiKey>().unwrap().hash(), a.hash());
        assert!(a.expose().starts_with(a.prefix()) && a.prefix().len() == 12);
        assert!(!format!("{a:?}").contains(&a.expose()[4..]));
    }

    #[test]
    fn malformed_keys_are_refused_without_repeating_them() {
        for text in [
            "",
            "ctx_short",
            "sk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "ctx_ääääääääääääääääääääääää",
            "ctx_aaaaaaaaaaaaaaaaaaaa aaaa",
        ] {
            let error = text.parse::<ApiKey>().unwrap_err();
            assert!(text.is_empty() || !error.to_string().contains(text));
        }
    }

    #[test]
    fn a_key_needs_the_very_scope() {
        let principal = Principal {
            tenant: super::super::DEFAULT_TENANT,
            api_key: Uuid::nil(),
            scopes: vec![Scope::Admin],
        };
        assert!(principal.require(Scope::Admin).is_ok());
        assert_eq!(principal.require(Scope::Read).unwrap_err().code, Code::MissingScope);
    }
}
