//! Which embedding provider, and how to reach it. The variables of the one in use have no prefix, those of the one that
//! is to take its place have `NEXT_`.

use reqwest::header::HeaderValue;
use secrecy::SecretString;

use super::{ConfigError, Source};
use crate::{
    domain::limits::DIMENSIONS_MAX,
    embedding::{OpenAiOptions, Provider, RerankOptions},
};

const OPENAI_URL: &str = "https://api.openai.com";
const NEXT: &str = "NEXT_";
/// All that say something about a provider.
const NAMES: [&str; 9] = [
    "EMBEDDING_PROVIDER",
    "EMBEDDING_SERVICE_URL",
    "EMBEDDING_API_KEY",
    "EMBEDDING_MODEL",
    "EMBEDDING_DIMENSIONS",
    "OPENAI_API_KEY",
    "OPENAI_ORGANIZATION",
    "OPENAI_PROJECT",
    "EMBEDDING_THREADS",
];

/// The provider in use.
pub(super) fn provider(source: &Source) -> Result<Provider, ConfigError> {
    Variables { source, prefix: "" }.provider()
}

/// The provider that is to take its place, if one is named.
pub(super) fn next_provider(source: &Source) -> Result<Option<Provider>, ConfigError> {
    let variables = Variables { source, prefix: NEXT };
    let Some(set) = NAMES.into_iter().find(|name| variables.is_set(name)) else { return Ok(None) };
    // Without any variable the first provider is the built-in model. The second one has to be meant.
    if !variables.is_set("EMBEDDING_PROVIDER") && !variables.is_set("EMBEDDING_SERVICE_URL") {
        return Err(variables.refuse(set, "is set without NEXT_EMBEDDING_PROVIDER"));
    }
    variables.provider().map(Some)
}

/// The reranker, if one is named.
pub(super) fn reranker(source: &Source) -> Result<Option<RerankOptions>, ConfigError> {
    let api_key = source.text("RERANK_API_KEY")?.map(SecretString::from);
    match source.text("RERANK_SERVICE_URL")? {
        Some(url) if is_http(&url) => Ok(Some(RerankOptions { url, api_key })),
        Some(_) => Err(source.refuse("RERANK_SERVICE_URL", "must have the form http://host:port")),
        None if api_key.is_some() => {
            Err(source.refuse("RERANK_API_KEY", "is set without RERANK_SERVICE_URL"))
        }
        None => Ok(None),
    }
}

fn is_http(url: &str) -> bool {
    reqwest::Url::parse(url).is_ok_and(|url| url.scheme().starts_with("http"))
}

/// The variables of one provider.
struct Variables<'s> {
    source: &'s Source,
    prefix: &'static str,
}

impl Variables<'_> {
    fn provider(&self) -> Result<Provider, ConfigError> {
        let url = self.text("EMBEDDING_SERVICE_URL")?;
        if !url.as_deref().is_none_or(is_http) {
            return Err(self.refuse("EMBEDDING_SERVICE_URL", "must have the form http://host:port"));
        }
        let named = self.text("EMBEDDING_PROVIDER")?;
        let default = if url.is_some() { "tei" } else { "builtin" };
        let named = named.as_deref().unwrap_or(default);
        if named != "openai" && self.is_set("EMBEDDING_DIMENSIONS") {
            let reason = format!("is for {}=openai alone", self.name("EMBEDDING_PROVIDER"));
            return Err(self.refuse("EMBEDDING_DIMENSIONS", reason));
        }
        match (named, url) {
            ("tei", Some(url)) => Ok(Provider::Tei { url, api_key: self.secret("EMBEDDING_API_KEY")? }),
            ("tei", None) => Err(self.refuse_without("EMBEDDING_SERVICE_URL", "tei")),
            ("openai", url) => self.openai(url.unwrap_or_else(|| OPENAI_URL.to_owned())),
            ("builtin", Some(_)) => {
                let reason =
                    format!("is set besides {}=builtin; unset one of them", self.name("EMBEDDING_PROVIDER"));
                Err(self.refuse("EMBEDDING_SERVICE_URL", reason))
            }
            #[cfg(feature = "builtin-embedder")]
            ("builtin", None) => Ok(Provider::Builtin {
                threads: program::cores(self.source, &self.name("EMBEDDING_THREADS"))?,
            }),
            #[cfg(not(feature = "builtin-embedder"))]
            ("builtin", None) => Err(self.refuse(
                "EMBEDDING_SERVICE_URL",
                "must be set: this build has no embedding model of its own",
            )),
            _ => Err(self.refuse("EMBEDDING_PROVIDER", "must be `builtin`, `tei` or `openai`")),
        }
    }

    fn openai(&self, url: String) -> Result<Provider, ConfigError> {
        let model = self.text("EMBEDDING_MODEL")?;
        let dimensions = self.name("EMBEDDING_DIMENSIONS");
        let given = self.source.is_set(&dimensions);
        let read = || self.source.parse_in(&dimensions, 1..=DIMENSIONS_MAX, DIMENSIONS_MAX);
        Ok(Provider::OpenAi(OpenAiOptions {
            url,
            model: model.ok_or_else(|| self.refuse_without("EMBEDDING_MODEL", "openai"))?,
            api_key: self.secret("OPENAI_API_KEY")?,
            dimensions: given.then(read).transpose()?,
            organization: self.header("OPENAI_ORGANIZATION")?,
            project: self.header("OPENAI_PROJECT")?,
        }))
    }

    /// What is sent as a header.
    fn header(&self, name: &str) -> Result<Option<String>, ConfigError> {
        let value = self.text(name)?;
        if value.as_ref().is_some_and(|value| HeaderValue::from_str(value).is_err()) {
            return Err(self.refuse(name, "holds a character that no header may have"));
        }
        Ok(value)
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn is_set(&self, name: &str) -> bool {
        self.source.is_set(&self.name(name))
    }

    fn text(&self, name: &str) -> Result<Option<String>, ConfigError> {
        self.source.text(&self.name(name))
    }

    fn secret(&self, name: &str) -> Result<Option<SecretString>, ConfigError> {
        Ok(self.text(name)?.map(SecretString::from))
    }

    fn refuse(&self, name: &str, reason: impl Into<std::borrow::Cow<'static, str>>) -> ConfigError {
        self.source.refuse(&self.name(name), reason)
    }

    fn refuse_without(&self, name: &str, provider: &str) -> ConfigError {
        self.refuse(name, format!("must be set for {}={provider}", self.name("EMBEDDING_PROVIDER")))
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn next(variables: &[(&str, &str)]) -> Result<Option<Provider>, String> {
        next_provider(&Source::from_pairs(variables)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_second_provider_has_the_same_variables_with_a_prefix() {
        assert!(next(&[("EMBEDDING_SERVICE_URL", "http://tei"), ("OPENAI_API_KEY", "x")]).unwrap().is_none());
        assert!(next(&[("NEXT_EMBEDDING_PROVIDER", "")]).unwrap().is_none());
        let variables = [
            ("EMBEDDING_SERVICE_URL", "http://tei"),
            ("NEXT_EMBEDDING_PROVIDER", "openai"),
            ("NEXT_EMBEDDING_MODEL", "large"),
            ("NEXT_OPENAI_API_KEY", "sk-next"),
        ];
        let source = Source::from_pairs(&variables);
        assert!(matches!(provider(&source).unwrap(), Provider::Tei { url, .. } if url == "http://tei"));
        let Some(Provider::OpenAi(openai)) = next(&variables).unwrap() else { panic!("a second provider") };
        assert_eq!((openai.url.as_str(), openai.model.as_str()), (OPENAI_URL, "large"));
        assert_eq!(openai.api_key.unwrap().expose_secret(), "sk-next");
        assert!(openai.dimensions.is_none() && openai.organization.is_none() && openai.project.is_none());
        let tei = next(&[("NEXT_EMBEDDING_SERVICE_URL", "http://next")]).unwrap();
        assert!(matches!(tei, Some(Provider::Tei { url, api_key: None }) if url == "http://next"));
    }

    #[test]
    fn a_secret_of_the_second_provider_may_be_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "sk-file\n").unwrap();
        let tei = next(&[
            ("NEXT_EMBEDDING_SERVICE_URL", "http://next"),
            ("NEXT_EMBEDDING_API_KEY_FILE", file.path().to_str().unwrap()),
        ]);
        let Ok(Some(Provider::Tei { api_key: Some(key), .. })) = tei else { panic!("{tei:?}") };
        assert_eq!(key.expose_secret(), "sk-file");
    }

    #[test]
    fn a_reranker_has_an_address_and_perhaps_a_key() {
        let read = |variables: &[(&str, &str)]| {
            reranker(&Source::from_pairs(variables)).map_err(|error| error.to_string())
        };
        assert!(read(&[]).unwrap().is_none() && read(&[("RERANK_SERVICE_URL", "")]).unwrap().is_none());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2\n").unwrap();
        let path = file.path().to_str().unwrap();
        let options =
            read(&[("RERANK_SERVICE_URL", "http://tei:80"), ("RERANK_API_KEY_FILE", path)]).unwrap().unwrap();
        assert_eq!(
            (options.url.as_str(), options.api_key.unwrap().expose_secret()),
            ("http://tei:80", "hunter2")
        );
        for (name, value, expected) in [
            ("RERANK_SERVICE_URL", "hunter2:80", "RERANK_SERVICE_URL must have the form http://host:port."),
            ("RERANK_API_KEY", "hunter2", "RERANK_API_KEY is set without RERANK_SERVICE_URL."),
        ] {
            assert_eq!(read(&[(name, value)]).unwrap_err(), expected);
        }
    }

    #[test]
    fn what_openai_takes_besides_a_text_is_checked_at_the_start() {
        let read = |name, value| {
            let openai = [("EMBEDDING_PROVIDER", "openai"), ("EMBEDDING_MODEL", "m"), (name, value)];
            provider(&Source::from_pairs(&openai)).map_err(|error| error.to_string())
        };
        for (name, value) in [
            ("EMBEDDING_DIMENSIONS", "0"),
            ("EMBEDDING_DIMENSIONS", "4001"),
            ("EMBEDDING_DIMENSIONS", "many"),
            ("OPENAI_ORGANIZATION", "or\ng"),
            ("OPENAI_PROJECT", "pro\u{7f}ject"),
        ] {
            assert!(read(name, value).unwrap_err().starts_with(name), "{name}={value:?}");
        }
        let Ok(Provider::OpenAi(openai)) = read("EMBEDDING_DIMENSIONS", "1024") else { panic!("a provider") };
        assert_eq!(openai.dimensions, Some(1024));
        let tei = [("EMBEDDING_SERVICE_URL", "http://tei"), ("EMBEDDING_DIMENSIONS", "128")];
        let error = provider(&Source::from_pairs(&tei)).unwrap_err().to_string();
        assert_eq!(error, "EMBEDDING_DIMENSIONS is for EMBEDDING_PROVIDER=openai alone.");
    }

    #[test]
    fn what_is_wrong_with_the_second_provider_names_its_own_variables() {
        for (variables, expected) in [
            (
                &[("NEXT_EMBEDDING_PROVIDER", "tei")][..],
                "NEXT_EMBEDDING_SERVICE_URL must be set for NEXT_EMBEDDING_PROVIDER=tei.",
            ),
            (
                &[("NEXT_EMBEDDING_PROVIDER", "openai"), ("EMBEDDING_MODEL", "first")],
                "NEXT_EMBEDDING_MODEL must be set for NEXT_EMBEDDING_PROVIDER=openai.",
            ),
            (
                &[("NEXT_EMBEDDING_PROVIDER", "builtin"), ("NEXT_EMBEDDING_SERVICE_URL", "http://h")],
                "NEXT_EMBEDDING_SERVICE_URL is set besides NEXT_EMBEDDING_PROVIDER=builtin; unset one of them.",
            ),
            (
                &[("NEXT_EMBEDDING_SERVICE_URL", "hunter2:80")],
                "NEXT_EMBEDDING_SERVICE_URL must have the form",
            ),
            (&[("NEXT_EMBEDDING_PROVIDER", "magic")], "NEXT_EMBEDDING_PROVIDER must be `builtin`, `tei` or"),
            (
                &[("NEXT_OPENAI_API_KEY", "hunter2")],
                "NEXT_OPENAI_API_KEY is set without NEXT_EMBEDDING_PROVIDER.",
            ),
        ] {
            let error = next(variables).unwrap_err();
            assert!(error.starts_with(expected) && !error.contains("hunter2"), "{error}");
        }
    }
}
