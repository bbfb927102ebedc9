//! Traces, by the variables that OpenTelemetry has given to all programs. With no address of a collector there are none. What
//! is set is looked at nevertheless, so that a mistake shows before somebody needs the traces.
//!
//! | Variable | Default | |
//! |---|---|---|
//! | `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` | no traces | address of a collector, with its path |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT` | no traces | the same without `/v1/traces` |
//! | `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_TRACES_HEADERS` | | what it is sent besides, a secret |
//! | `OTEL_EXPORTER_OTLP_TIMEOUT`, `OTEL_EXPORTER_OTLP_TRACES_TIMEOUT` | `10000` | milliseconds for one request |
//! | `OTEL_EXPORTER_OTLP_PROTOCOL`, `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL` | `http/protobuf` | and nothing else |
//! | `OTEL_EXPORTER_OTLP_COMPRESSION`, `OTEL_EXPORTER_OTLP_TRACES_COMPRESSION` | `none` | and nothing else |
//! | `OTEL_TRACES_EXPORTER` | `otlp` | or `none` |
//! | `OTEL_SDK_DISABLED` | `false` | `true`: no traces |
//! | `OTEL_SERVICE_NAME` | `context-api` | what the collector calls this process |
//! | `OTEL_RESOURCE_ATTRIBUTES` | | what else it is told of it |
//! | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | `parentbased_always_on` | which traces are recorded |
//! | `OTEL_BSP_SCHEDULE_DELAY` | `5000` | milliseconds that a span waits for others to be sent with it |
//! | `OTEL_BSP_MAX_QUEUE_SIZE` | `2048` | spans that wait; further ones are left out |

use std::{collections::BTreeMap, time::Duration};

use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderName, HeaderValue};
use secrecy::SecretString;

use super::{ConfigError, Source};
use crate::telemetry::{Sampling, TraceOptions};

const NAME_DEFAULT: &str = "context-api";
const TIMEOUT_DEFAULT_MS: u64 = 10_000;
const DELAY_DEFAULT_MS: u64 = 5_000;
const QUEUE_DEFAULT: usize = 2_048;
/// What a collector gets its traces at.
const PATH: &str = "/v1/traces";

/// Where traces go, and which; none when nobody wants any.
///
/// # Errors
/// [`ConfigError`].
pub fn traces(source: &Source) -> Result<Option<TraceOptions>, ConfigError> {
    let endpoint = endpoint(source)?;
    let headers = headers(source)?;
    only(source, ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"], "http/protobuf")?;
    only(source, ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"], "none")?;
    let timeout = first(["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"], |name| {
        source.is_set(name).then(|| source.parse_in(name, 1..=60_000, TIMEOUT_DEFAULT_MS)).transpose()
    })?;
    let is_disabled = source.parse("OTEL_SDK_DISABLED", "`true` or `false`")?.unwrap_or(false);
    let is_exported = match source.text("OTEL_TRACES_EXPORTER")?.as_deref() {
        None | Some("otlp") => true,
        Some("none") => false,
        Some(_) => return Err(source.refuse("OTEL_TRACES_EXPORTER", "must be `otlp` or `none`")),
    };
    let (sampling, as_the_caller_says) = sampling(source)?;
    let mut resource = pairs(source, "OTEL_RESOURCE_ATTRIBUTES")?;
    let named = resource.remove("service.name");
    let options = TraceOptions {
        endpoint: endpoint.clone().unwrap_or_default(),
        headers,
        timeout: Duration::from_millis(timeout.unwrap_or(TIMEOUT_DEFAULT_MS)),
        service_name: source.text("OTEL_SERVICE_NAME")?.or(named).unwrap_or_else(|| NAME_DEFAULT.to_owned()),
        resource: resource.into_iter().collect(),
        sampling,
        as_the_caller_says,
        delay: Duration::from_millis(source.parse_in(
            "OTEL_BSP_SCHEDULE_DELAY",
            10..=60_000,
            DELAY_DEFAULT_MS,
        )?),
        queue_max: source.parse_in("OTEL_BSP_MAX_QUEUE_SIZE", 1..=100_000, QUEUE_DEFAULT)?,
    };
    Ok((endpoint.is_some() && is_exported && !is_disabled).then_some(options))
}

/// Of the variable for traces alone, or else of the one for everything, whose address is that of all signals together.
fn endpoint(source: &Source) -> Result<Option<String>, ConfigError> {
    let read = |name: &str| {
        let Some(text) = source.text(name)? else { return Ok(None) };
        let refused = || source.refuse(name, "must have the form http://host:4318");
        let url = reqwest::Url::parse(text.trim()).map_err(|_| refused())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(refused());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(source.refuse(name, "holds a password, which belongs to OTEL_EXPORTER_OTLP_HEADERS"));
        }
        Ok(Some(url))
    };
    let (own, all) = (read("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")?, read("OTEL_EXPORTER_OTLP_ENDPOINT")?);
    Ok(own.map(String::from).or_else(|| {
        let mut url = all?;
        let path = format!("{}{PATH}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        Some(url.into())
    }))
}

/// The variable for traces alone, if it is set, or else the one for everything. Both are looked at.
fn first<T>(
    names: [&str; 2],
    read: impl Fn(&str) -> Result<Option<T>, ConfigError>,
) -> Result<Option<T>, ConfigError> {
    let [own, all] = names.map(read);
    Ok(own?.or(all?))
}

/// What there is just one way of.
fn only(source: &Source, names: [&str; 2], value: &'static str) -> Result<(), ConfigError> {
    for name in names {
        if source.text(name)?.is_some_and(|text| text.trim() != value) {
            return Err(
                source.refuse(name, format!("must be `{value}`, which is all that this service speaks"))
            );
        }
    }
    Ok(())
}

fn headers(source: &Source) -> Result<Vec<(String, SecretString)>, ConfigError> {
    let headers = first(["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"], |name| {
        let pairs = pairs(source, name)?;
        let is_usable = |(name, value): (&String, &String)| {
            HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_str(value).is_ok()
        };
        if !pairs.iter().all(is_usable) {
            return Err(source.refuse(name, "holds a character that no header may have"));
        }
        Ok(source.is_set(name).then_some(pairs))
    })?;
    let secret = |(name, value)| (name, SecretString::from(value));
    Ok(headers.unwrap_or_default().into_iter().map(secret).collect())
}

/// `name=value,name=value`, percent-encoded, as W3C Baggage has it.
fn pairs(source: &Source, name: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    let Some(text) = source.text(name)? else { return Ok(BTreeMap::new()) };
    let refused = || source.refuse(name, "must have the form name=value,name=value, percent-encoded");
    let mut pairs = BTreeMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(refused)?;
        let value = percent_decode_str(value.trim()).decode_utf8().map_err(|_| refused())?;
        let key = key.trim();
        if key.is_empty() {
            return Err(refused());
        }
        pairs.insert(key.to_owned(), value.into_owned());
    }
    Ok(pairs)
}

/// Which traces are recorded, and whether the caller has a say.
fn sampling(source: &Source) -> Result<(Sampling, bool), ConfigError> {
    const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    let name = source.text(SAMPLER)?;
    let name = name.as_deref().map_or("parentbased_always_on", str::trim);
    let (kind, as_the_caller_says) = match name.strip_prefix("parentbased_") {
        Some(kind) => (kind, true),
        None => (name, false),
    };
    let share: Option<f64> = source.parse(ARGUMENT, "a share from 0 to 1")?;
    if share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
        return Err(source.refuse(ARGUMENT, "must be a share from 0 to 1"));
    }
    let sampling = match kind {
        "always_on" => Sampling::All,
        "always_off" => Sampling::None,
        "traceidratio" => Sampling::Share(share.unwrap_or(1.0)),
        _ => {
            return Err(source.refuse(
                SAMPLER,
                "must be `always_on`, `always_off` or `traceidratio`, or one of them behind `parentbased_`",
            ));
        }
    };
    if share.is_some() && kind != "traceidratio" {
        return Err(source.refuse(ARGUMENT, format!("is set, and {SAMPLER} is not one of a share")));
    }
    Ok((sampling, as_the_caller_says))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

    fn read(variables: &[(&str, &str)]) -> Result<Option<TraceOptions>, String> {
        traces(&Source::from_pairs(variables)).map_err(|error| error.to_string())
    }

    fn with(variable: (&str, &str)) -> TraceOptions {
        read(&[ENDPOINT, variable]).unwrap().expect("traces")
    }

    #[test]
    fn there_are_none_unless_somebody_names_a_collector() {
        for off in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
            &[("OTEL_SERVICE_NAME", "x"), ("OTEL_TRACES_SAMPLER", "always_on")],
            &[ENDPOINT, ("OTEL_SDK_DISABLED", "true")],
            &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")],
        ] {
            assert!(read(off).unwrap().is_none(), "{off:?}");
        }
        let options = with(("OTEL_SERVICE_NAME", ""));
        assert_eq!((options.service_name.as_str(), options.sampling), (NAME_DEFAULT, Sampling::All));
        assert!(options.as_the_caller_says && options.headers.is_empty() && options.resource.is_empty());
        assert_eq!((options.timeout.as_secs(), options.delay.as_secs(), options.queue_max), (10, 5, 2_048));
    }

    #[test]
    fn the_address_of_all_signals_gets_a_path_and_that_of_traces_is_taken_as_it_is() {
        let endpoint = |variables: &[_]| read(variables).unwrap().unwrap().endpoint;
        assert_eq!(endpoint(&[ENDPOINT]), "http://collector:4318/v1/traces");
        assert_eq!(
            endpoint(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://h/otlp/")]),
            "https://h/otlp/v1/traces"
        );
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://other:1/in?to=x");
        assert_eq!(endpoint(&[ENDPOINT, own]), "http://other:1/in?to=x");
    }

    #[test]
    fn headers_are_secrets_and_may_be_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "authorization=Bearer%20hunter2, x-scope=a=b\n").unwrap();
        let options = with(("OTEL_EXPORTER_OTLP_HEADERS_FILE", file.path().to_str().unwrap()));
        let headers: Vec<_> =
            options.headers.iter().map(|(name, value)| (name.as_str(), value.expose_secret())).collect();
        assert_eq!(headers, [("authorization", "Bearer hunter2"), ("x-scope", "a=b")]);
        assert!(!format!("{options:?}").contains("hunter2"));
        let both =
            [ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"), ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b=2")];
        let headers = read(&both).unwrap().unwrap().headers;
        assert_eq!((headers.len(), headers[0].0.as_str()), (1, "b"));
    }

    #[test]
    fn sampling_is_by_share_and_by_the_caller() {
        let sampling = |name, share| {
            let options =
                read(&[ENDPOINT, ("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", share)]);
            options.map(|options| options.map(|options| (options.sampling, options.as_the_caller_says)))
        };
        assert_eq!(sampling("always_off", "").unwrap(), Some((Sampling::None, false)));
        assert_eq!(sampling("traceidratio", "0.25").unwrap(), Some((Sampling::Share(0.25), false)));
        assert_eq!(sampling("parentbased_traceidratio", "").unwrap(), Some((Sampling::Share(1.0), true)));
        assert!(sampling("always_on", "0.5").unwrap_err().starts_with("OTEL_TRACES_SAMPLER_ARG is set"));
    }

    #[test]
    fn the_name_may_be_among_the_attributes() {
        let options =
            with(("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,deployment.environment.name=st%61ging"));
        assert_eq!(options.service_name, "a");
        assert_eq!(options.resource, [("deployment.environment.name".to_owned(), "staging".to_owned())]);
    }

    #[test]
    fn a_bad_value_names_its_variable_and_keeps_its_secret_also_without_a_collector() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "hunter2:4318"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://hunter2"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:hunter2@h"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "hunter2"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "=hunter2"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=hunter2%FF"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=hunter2%0A"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a b=hunter2"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_TRACES_SAMPLER", "parentbased_jaeger_remote"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.1"),
            ("OTEL_TRACES_SAMPLER_ARG", "NaN"),
            ("OTEL_TRACES_SAMPLER_ARG", "half"),
            ("OTEL_RESOURCE_ATTRIBUTES", "hunter2"),
            ("OTEL_SDK_DISABLED", "hunter2"),
            ("OTEL_BSP_SCHEDULE_DELAY", "5s"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(name) && !error.contains("hunter2"), "{error}");
            assert_eq!(error.matches(". ").count(), 0, "one sentence: {error}");
        }
    }
}
