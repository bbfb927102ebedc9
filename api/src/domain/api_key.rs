//! API keys: what they look like, what they allow, and how they are kept (only as a hash).

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use strum::{EnumIter, IntoEnumIterator, IntoStaticStr};
use subtle::ConstantTimeEq;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{UserId, life::storable_time, limits::API_KEY_NAME_CHARS_MAX, names::bounded_name};
use crate::error::{Code, Error, Result};

/// What a key may do. `admin` does not include the others: a key names each scope that it has.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, EnumIter, IntoStaticStr,
)]
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

    /// Whether it is the stored hash `bytes`; takes as long when they differ early as when they differ late.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        self.0.as_slice().ct_eq(bytes).into()
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
    /// The one user whose contexts it reaches; none for all of the tenant.
    pub user_id: Option<UserId>,
    pub expires_at: Option<OffsetDateTime>,
}

impl NewApiKey {
    /// # Errors
    /// [`Code::InvalidRequest`] for an empty or long name, no scope, or an admin that is bound to a user.
    pub fn new(
        name: &str,
        mut scopes: Vec<Scope>,
        user_id: Option<UserId>,
        expires_at: Option<OffsetDateTime>,
    ) -> Result<Self> {
        let name = bounded_name("/name", name.trim().to_owned(), API_KEY_NAME_CHARS_MAX)?;
        if scopes.is_empty() {
            return Err(Error::invalid("/scopes", "must name at least one of read, write and admin"));
        }
        if scopes.len() > Scope::iter().count() {
            return Err(Error::invalid("/scopes", "must name each scope once at most"));
        }
        if user_id.is_some() && scopes.contains(&Scope::Admin) {
            return Err(Error::invalid(
                "/scopes",
                "a key that is bound to a user cannot have `admin`, which reaches beyond any user",
            ));
        }
        if user_id == Some(UserId(Uuid::nil())) {
            return Err(Error::invalid("/user_id", "must not be the nil UUID, which stands for no user"));
        }
        scopes.sort_by_key(|scope| scope.as_str());
        scopes.dedup();
        let expires_at = expires_at.map(|at| storable_time("/expires_at", at)).transpose()?;
        Ok(Self { name, scopes, user_id, expires_at })
    }
}

/// A key as it can be shown: everything but the secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(title = "ApiKey")]
pub struct ApiKeyInfo {
    /// Its id, to rotate or revoke it by.
    pub id: Uuid,
    /// What it is for.
    pub name: String,
    /// The first characters of the secret, to tell keys apart.
    pub prefix: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The one user whose contexts it reaches; null for all of the tenant.
    #[schema(required, value_type = Option<Uuid>)]
    pub user_id: Option<UserId>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it stops working by itself; null for never.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub expires_at: Option<OffsetDateTime>,
    /// To the minute; null before the first use.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub last_used_at: Option<OffsetDateTime>,
    /// When it was revoked; null while it works.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub revoked_at: Option<OffsetDateTime>,
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
    fn a_hash_matches_itself_alone() {
        let (a, b) = (ApiKey::generate().unwrap().hash(), ApiKey::generate().unwrap().hash());
        assert!(a.matches(a.as_bytes()));
        assert!(!a.matches(b.as_bytes()) && !a.matches(&a.as_bytes()[..31]) && !a.matches(&[]));
    }

    #[test]
    fn a_key_for_one_user_is_no_admin() {
        let user = Some(UserId(Uuid::from_u128(7)));
        assert!(NewApiKey::new("a", vec![Scope::Read], Some(UserId(Uuid::nil())), None).is_err());
        assert!(NewApiKey::new("a", vec![Scope::Read, Scope::Write], user, None).is_ok());
        assert!(NewApiKey::new("a", vec![Scope::Read, Scope::Admin], user, None).is_err());
        assert!(NewApiKey::new("a", vec![], None, None).is_err());
        assert!(NewApiKey::new("a", vec![Scope::Read; 4], None, None).is_err());
        assert!(NewApiKey::new(&"a".repeat(API_KEY_NAME_CHARS_MAX), Scope::all(), None, None).is_ok());
        assert!(NewApiKey::new(&"a".repeat(API_KEY_NAME_CHARS_MAX + 1), Scope::all(), None, None).is_err());
    }
}
