//! `[trace]`, and OpenTelemetry's variables that override it.

use url::Url;

use super::fault::{Origin, Report};
use super::location::{Field, Location};
use super::parse::LoadContext;
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
pub(super) fn parse(
    endpoint: Field<String>,
    sample: Field<f64>,
    context: &LoadContext<'_>,
    report: &mut Report,
) -> Option<Config> {
    let sample = sample.sound_or(
        1.0,
        |share| (0.0..=1.0).contains(share),
        "this is no share",
        "write a number from 0 (no trace) to 1 (every trace)",
        report,
    );
    let given = match endpoint {
        Field::Faulty => return None,
        Field::Given(spanned) => Some((spanned.value, spanned.location, true)),
        Field::Absent => from_environment(context.env),
    };
    let (text, location, is_base) = given?;
    let url = Url::parse(&text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.has_host()
    });
    let Some(mut url) = url else {
        report.fault(location.fault(
            "this is not the URL of a collector",
            "write the base URL of its OTLP receiver for HTTP, like \"http://localhost:4318\", without a user",
        ));
        return None;
    };
    if is_base && !url.path().ends_with(PATH) {
        let path = format!("{}/{PATH}", url.path().trim_end_matches('/'));
        url.set_path(&path);
    }
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
        .find_map(|(name, is_base)| {
            let location = Location {
                origin: Origin::Environment,
                key: name.to_owned(),
                line: None,
            };
            env(name).map(|text| (text, location, is_base))
        })
}
