//! Every metric family in a scrape.

use super::*;
use crate::telemetry::ended::tests::ENDED;
use crate::telemetry::{Ended, InFlight, Label};
use std::time::Duration;

/// A label with two values.
#[derive(Clone, Copy)]
struct Known(&'static str);

impl Label for Known {
    const ALL: &'static [Known] = &[Known("timeout"), Known("no-token")];

    fn label(self) -> &'static str {
        self.0
    }
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Returns metrics with one client, listener, app and request, and one of every event.
fn used() -> Metrics {
    let metrics = Metrics::new("0.0.0");
    let _ = metrics.store("memory");
    metrics.client("catalog").declare::<Known, Known, Known>();
    metrics.listener("local").declare::<Known>();
    metrics.config_loaded(at(1_000));
    InFlight::new(metrics.app("").traffic("catalog")).count(&ENDED);
    let _ = metrics.app("lineage");
    metrics
}

/// Returns a scrape that sets every gauge.
fn rendered(metrics: &Metrics) -> String {
    metrics.render(Format::Text, |levels| {
        for (family, labels, value) in [
            (&levels.token_usable, &["catalog"][..], 1.0),
            (&levels.connections_max, &["local"], 10_000.0),
            (&levels.app_rate_max, &["lineage"], 0.5),
            (&levels.certificate_expiry, &["listener", "local"], 2_000.0),
        ] {
            family.with_label_values(labels).set(value);
        }
    })
}

/// Returns the value of `series`.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| {
        line.strip_prefix("collibra_auth_proxy_")?
            .strip_prefix(series)
    });
    line.unwrap_or_else(|| panic!("no {series} in\n{text}"))
        .trim()
        .parse()
        .unwrap()
}

#[test]
fn every_family_keeps_the_format_and_the_conventions() {
    let text = rendered(&used());
    let mut families = 0;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(help) = line.strip_prefix("# HELP ") else {
            panic!("{line:?} stands before its HELP");
        };
        let (name, help) = help.split_once(' ').unwrap();
        assert!(help.ends_with('.'), "{name}: {help:?} is no sentence");
        let kind = lines.next().unwrap().strip_prefix("# TYPE ").unwrap();
        let kind = kind.strip_prefix(name).unwrap().trim();
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        assert!(kind != "histogram" || name.ends_with("_seconds"), "{name}");
        let known = ["collibra_auth_proxy_", "process_"];
        assert!(
            known.iter().any(|prefix| name.starts_with(prefix)),
            "{name}"
        );
        while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
            assert!(sample.starts_with(name), "{sample} below {name}");
            let value = sample.rsplit_once(' ').unwrap().1;
            assert!(value.parse::<f64>().unwrap().is_finite(), "{sample}");
        }
        families += 1;
    }
    assert!(families >= 15, "{text}");
}

#[test]
fn what_has_not_happened_yet_is_shown_at_zero() {
    let text = rendered(&used());
    for outcome in ["ok", "timeout", "no-token"] {
        let series = format!("token_requests_total{{client=\"catalog\",outcome=\"{outcome}\"}}");
        assert_eq!(value(&text, &series), 0.0);
    }
    let series = "refused_total{app=\"\",listener=\"local\",reason=\"no-token\"}";
    assert_eq!(value(&text, series), 0.0);
    let series = "replays_total{client=\"catalog\",outcome=\"timeout\"}";
    assert_eq!(value(&text, series), 0.0);
}

#[test]
fn a_client_a_listener_and_an_app_are_counted() {
    let metrics = used();
    let client = metrics.client("catalog");
    client.token_request(Err(Known("timeout")), Duration::from_millis(20), at(1));
    client.token_request(Ok::<(), Known>(()), Duration::from_millis(20), at(2));
    let last = client.last_token_requests();
    assert_eq!(
        last.iter().map(|last| last.outcome).collect::<Vec<_>>(),
        ["ok", "timeout"]
    );
    let waiting = client.waits();
    let lineage = metrics.app("lineage");
    let in_flight = InFlight::new(lineage.traffic("catalog"));
    in_flight.count(&Ended {
        status: 429,
        upstream: None,
        ..ENDED
    });
    let listener = metrics.listener("local");
    let open = listener.connection();
    listener.refused(Known("no-token"), "lineage");

    let text = rendered(&metrics);
    let shown = |series: &str| value(&text, series);
    let of_client = |name: &str| shown(&format!("{name}{{client=\"catalog\"}}"));
    assert_eq!(of_client("token_usable"), 1.0);
    assert_eq!(of_client("token_waiters"), 1.0);
    assert_eq!(of_client("token_request_duration_seconds_count"), 2.0);
    let of_app =
        |name: &str, app: &str| shown(&format!("{name}{{app=\"{app}\",client=\"catalog\"}}"));
    assert_eq!(of_app("requests_in_flight", "lineage"), 1.0);
    assert_eq!(of_app("requests_in_flight", ""), 0.0);
    assert_eq!(of_app("request_duration_seconds_count", "lineage"), 1.0);
    assert_eq!(of_app("upstream_duration_seconds_count", "lineage"), 0.0);
    assert_eq!(of_app("upstream_duration_seconds_sum", ""), 0.03);
    assert_eq!(of_app("request_bytes_total", "lineage"), 10.0);
    assert_eq!(of_app("response_bytes_total", ""), 1_000.0);
    assert_eq!(shown("app_rate_max{app=\"lineage\"}"), 0.5);
    assert_eq!(shown("connections{listener=\"local\"}"), 1.0);
    assert_eq!(shown("connections_max{listener=\"local\"}"), 10_000.0);
    let refused = "refused_total{app=\"lineage\",listener=\"local\",reason=\"no-token\"}";
    assert_eq!(shown(refused), 1.0);
    let answered = |app: &str, code: u16, source: &str| {
        let labels = format!("app=\"{app}\",client=\"catalog\",code=\"{code}\"");
        shown(&format!(
            "requests_total{{{labels},method=\"GET\",source=\"{source}\"}}"
        ))
    };
    assert_eq!(answered("", 200, "instance"), 1.0);
    assert_eq!(answered("lineage", 429, "proxy"), 1.0);
    let certificate = "certificate_expiry_timestamp_seconds{kind=\"listener\",name=\"local\"}";
    assert_eq!(shown(certificate), 2_000.0);
    let totals = metrics.client_totals("catalog");
    assert_eq!((totals.answered, totals.in_flight), (2, 1));
    let of_app = lineage.totals();
    assert_eq!((of_app.answered, of_app.in_flight), (1, 1));

    drop((in_flight, open, waiting));
    assert_eq!(metrics.client_totals("catalog").in_flight, 0);
    assert_eq!(listener.connections(), 0);
    let text = rendered(&metrics);
    assert_eq!(value(&text, "token_waiters{client=\"catalog\"}"), 0.0);
}

#[test]
fn a_traced_request_is_the_exemplar_of_its_bucket() {
    let metrics = used();
    let odd = metrics.app("an \"odd\\ name").traffic("catalog");
    let traced = Ended {
        trace_id: Some(u128::MAX / 0xff * 0xab),
        ..ENDED
    };
    InFlight::new(Arc::clone(&odd)).count(&traced);
    InFlight::new(odd).count(&Ended {
        took: Duration::from_secs(10_000),
        ..traced
    });
    let text = metrics.render(Format::OpenMetrics, |_| {});
    let exemplars: Vec<&str> = text.lines().filter(|line| line.contains(" # {")).collect();
    let trace = "ab".repeat(16);
    let series = |bound: &str| {
        format!(
            "collibra_auth_proxy_request_duration_seconds_bucket{{app=\"an \\\"odd\\\\ name\",client=\"catalog\",le=\"{bound}\"}}"
        )
    };
    let expected = [
        format!("{} 1 # {{trace_id=\"{trace}\"}} 0.04", series("0.05")),
        format!("{} 2 # {{trace_id=\"{trace}\"}} 10000", series("+Inf")),
    ];
    assert_eq!(exemplars, expected);
    assert!(!rendered(&metrics).contains("trace_id"));
}

#[test]
fn a_refused_configuration_is_told_until_one_is_taken_over() {
    let metrics = used();
    let failed = || value(&rendered(&metrics), "config_reload_failed");
    let at = || {
        value(
            &rendered(&metrics),
            "config_reload_success_timestamp_seconds",
        )
    };
    assert_eq!((failed(), at()), (0.0, 1_000.0));
    metrics.config_refused();
    assert_eq!((failed(), at()), (1.0, 1_000.0));
    metrics.config_loaded(SystemTime::UNIX_EPOCH + Duration::from_secs(1_001));
    assert_eq!((failed(), at()), (0.0, 1_001.0));
}

#[test]
fn a_gauge_that_a_scrape_does_not_set_is_not_shown() {
    let metrics = used();
    assert!(rendered(&metrics).contains("token_usable{"));
    let text = metrics.render(Format::Text, |_| {});
    for name in ["token_usable", "connections_max", "app_rate_max"] {
        assert!(!text.contains(name), "{text}");
    }
}
