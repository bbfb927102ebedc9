//! Which Redis, if any.

use secrecy::SecretString;

use super::{ConfigError, Source};
use crate::cache::{REDIS_URL_FORMS, RedisOptions};

pub(super) fn redis(source: &Source) -> Result<Option<RedisOptions>, ConfigError> {
    let secret = |name| Ok::<_, ConfigError>(source.text(name)?.map(SecretString::from));
    let (password, sentinel_password) = (secret("REDIS_PASSWORD")?, secret("REDIS_SENTINEL_PASSWORD")?);
    let Some(url) = source.text("REDIS_URL")? else {
        return match (password, sentinel_password) {
            (Some(_), _) => Err(source.refuse("REDIS_PASSWORD", "is set without REDIS_URL")),
            (_, Some(_)) => Err(source.refuse("REDIS_SENTINEL_PASSWORD", "is set without REDIS_URL")),
            (None, None) => Ok(None),
        };
    };
    let options = RedisOptions { url: url.into(), password, sentinel_password };
    if !options.is_well_formed() {
        return Err(source.refuse("REDIS_URL", REDIS_URL_FORMS));
    }
    Ok(Some(options))
}
