//! `[trace]`, and OpenTelemetry's variables that override it.

use url::Url;

use super::context::LoadContext;
use super::fault::Location;
use super::tables;
use crate::trace::Config;

/// OpenTelemetry's variable for the collector's base URL.
const BASE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Its variable for the URL of traces.
const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
/// Its variable that disables telemetry if `true`.
const DISABLED: &str = "OTEL_SDK_DISABLED";

/// The path of traces below the collector's base URL.
const PATH: &str = "v1/traces";

/// Validates the table: `None` without a collector.
pub(super) fn parse(raw: &tables::Trace, context: &LoadContext<'_>) -> Option<Config> {
    let sample = raw.sample(context);
    let (text, location, is_base) = match &raw.endpoint {
        Some(spanned) => (spanned.value.clone(), spanned.location.clone(), true),
        None => from_environment(context.env)?,
    };
    let url = Url::parse(&text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.has_host()
    });
    let Some(mut url) = url else {
        context.fault(location.fault(
            "this is not the URL of a collector",
            "write the base URL of its OTLP receiver for HTTP, like \"http://localhost:4318\", without a user",
        ));
        return None;
    };
    if is_base && !url.path().ends_with(PATH) {
        let path = format!("{}/{PATH}", url.path().trim_end_matches('/'));
        url.set_path(&path);
    }
    // the query may contain a key
    let mut shown = url.clone();
    shown.set_query(None);
    // a URL without a host would fail, but this one has a host
    let _ = shown.set_password(None);
    raw.show_as("endpoint", shown.as_str());
    Some(Config {
        endpoint: url,
        sample,
    })
}

/// The URL, its location, and whether it is a base URL.
fn from_environment(env: &dyn Fn(&str) -> Option<String>) -> Option<(String, Location, bool)> {
    if env(DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return None;
    }
    [(TRACES, false), (BASE, true)]
        .into_iter()
        .find_map(|(name, is_base)| Some((env(name)?, Location::variable(name), is_base)))
}
