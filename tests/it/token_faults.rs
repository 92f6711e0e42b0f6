//! The token endpoint fails, in every known way, for two simulated minutes. From a steady state no
//! app notices. After a cold start apps are told, and service is restored as soon as the pool
//! allows.
//!
//! Real processes on real sockets, at 60 times real speed. `--nocapture` prints how long each case
//! took until there was a token again.

mod front;
mod load;
mod rig;

use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::load::{Got, Load};
use self::rig::{Counted, Log, Proxy, Rig};

/// A simulated minute.
const COLLIBRA_MINUTE: Duration = Duration::from_secs(1);
const FAULT: Duration = Duration::from_secs(2);

/// What scheduling on a busy machine may add to any bound.
const SLACK: Duration = Duration::from_millis(500);

/// The number of concurrent cases, over all tests of this file.
static AT_ONCE: Semaphore = Semaphore::const_new(8);

/// Just before a token is renewed, at an age between 2.29 s and 2.41 s.
const BEFORE_RENEWAL: Duration = Duration::from_millis(2_200);

/// Ages of a token, in real time, at which a fault begins. For each of them the renewal falls into
/// the fault, and the pool is full again by then.
const PHASES: [Duration; 3] = [
    Duration::from_millis(800),
    Duration::from_millis(1_200),
    BEFORE_RENEWAL,
];

/// The possible cost of a fault, which determines the latest next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cost {
    /// Nothing.
    Nothing,
    /// Possibly a token, so attempts are spread out.
    Perhaps,
    /// Nothing, but the issuer asked for a pause.
    Pause,
    /// It is not a fault: the response is usable.
    None,
}

impl Cost {
    /// How soon after the fault's end there must be a token.
    fn bound(self) -> Duration {
        match self {
            Cost::Nothing => COLLIBRA_MINUTE / 4,
            Cost::Perhaps => COLLIBRA_MINUTE,
            // the pause and its jitter
            Cost::Pause => COLLIBRA_MINUTE * 11 / 10,
            Cost::None => Duration::ZERO,
        }
    }
}

#[derive(Clone, Debug)]
struct Fault {
    name: &'static str,
    /// The simulator's fault; `None` for a fault of the front.
    order: Option<Value>,
    cost: Cost,
}

/// The wrong certificate, which the simulator itself cannot send.
const CERTIFICATE: &str = "certificate";

fn faults() -> Vec<Fault> {
    let kind = |kind: &'static str, cost| Fault {
        name: kind,
        order: Some(json!({ "kind": kind })),
        cost,
    };
    let with_retry_after = |name, kind: &str| Fault {
        name,
        order: Some(json!({ "kind": kind, "retry_after": 1 })),
        cost: Cost::Pause,
    };
    vec![
        kind("status:429", Cost::Pause),
        with_retry_after("status:429, Retry-After", "status:429"),
        kind("status:500", Cost::Nothing),
        kind("status:503", Cost::Nothing),
        with_retry_after("status:503, Retry-After", "status:503"),
        kind("hang", Cost::Perhaps),
        kind("reset", Cost::Perhaps),
        kind("close", Cost::Perhaps),
        kind("empty", Cost::Perhaps),
        kind("html", Cost::Perhaps),
        kind("truncate", Cost::Perhaps),
        kind("oversized", Cost::Perhaps),
        kind("redirect", Cost::Nothing),
        kind("expires_in:0", Cost::Perhaps),
        kind("expires_in:-1", Cost::Perhaps),
        kind("expires_in:absent", Cost::Perhaps),
        // the lifetime of a token here, as a string
        kind("expires_in:\"5\"", Cost::None),
        kind("token_type:mac", Cost::Perhaps),
        Fault {
            name: CERTIFICATE,
            order: None,
            cost: Cost::Nothing,
        },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_steady_state_two_minutes_of_any_fault_are_not_noticed() {
    let cases = faults().into_iter().flat_map(|fault| {
        PHASES.map(|phase| (format!("{} at {phase:?}", fault.name), fault.clone(), phase))
    });
    run(cases.map(|(name, fault, phase)| (name, steady(fault, phase)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_start_into_any_fault_is_told_to_apps_and_ends_soon_after_it() {
    let faults = faults()
        .into_iter()
        .filter(|fault| fault.cost != Cost::None);
    run(faults.map(|fault| (fault.name.to_owned(), cold(fault)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_charges_for_refusals_is_understood_after_one_429() {
    let kinds = ["status:401", "status:429", "status:500", "status:503"];
    run(kinds.map(|kind| (format!("{kind}, charged"), charging(kind)))).await;
}

/// From a steady state, with the fault at this age of the token.
async fn steady(fault: Fault, phase: Duration) -> Report {
    let mut report = Report::default();
    let rig = Rig::start(fault.name == CERTIFICATE).await;
    let proxy = rig.proxy();
    let first = Rig::first_token(&proxy).await;
    let load = Load::begin(&proxy.url().await);
    tokio::time::sleep_until(first + phase).await;

    let begin = now();
    match (&fault.order, &rig.front) {
        (Some(order), _) => rig.simulator.order(order, true).await,
        (None, front) => front.as_ref().unwrap().go_wrong(FAULT),
    }
    // until after the previous token has expired
    tokio::time::sleep_until(now() + FAULT + COLLIBRA_MINUTE * 6 / 5).await;

    let is_answered = load.is_answered(100).await;
    let tally = load.end().await;
    report.check(is_answered, || format!("only {} answers", tally.answers));
    report.check(tally.others.is_empty(), || {
        format!("{} of {} noticed", tally.others.len(), tally.answers)
            + &format!(": {:?}", tally.others[0])
    });
    let counted = rig.simulator.counted().await;
    report.counts(&counted, 0);
    let failed = !proxy.log().failed.is_empty();
    if fault.cost == Cost::None {
        report.check(counted.faulted > 0 && !failed, || {
            "it was refused".to_owned()
        });
    } else {
        report.check(failed, || "the fault fell upon nothing".to_owned());
        // the old token stays usable, as the responses show, so this is not urgent
        let bound = fault.cost.bound().max(COLLIBRA_MINUTE);
        report.back(&proxy, begin + FAULT, bound).await;
    }
    report
}

/// With the fault before the proxy starts.
async fn cold(fault: Fault) -> Report {
    let mut report = Report::default();
    let rig = Rig::start(fault.name == CERTIFICATE).await;
    match (&fault.order, &rig.front) {
        (Some(order), _) => rig.simulator.order(order, false).await,
        (None, front) => front.as_ref().unwrap().go_wrong(FAULT * 100),
    }
    let proxy = rig.proxy();
    let url = proxy.url().await;
    let load = Load::begin(&url);
    tokio::time::sleep(FAULT).await;

    let tally = load.end().await;
    let told = |got: &Got| matches!(got, Got::NoToken(seconds) if *seconds <= 2);
    report.check(tally.answers == 0, || {
        format!("{} were answered", tally.answers)
    });
    report.check(tally.others.len() > 10, || "few were told".to_owned());
    report.check(tally.others.iter().all(told), || {
        let odd = tally.others.iter().find(|got| !told(got));
        format!("an app was not told that there is no token: {odd:?}")
    });
    let counted = rig.simulator.counted().await;
    report.check(counted.requests == 0, || {
        format!("{} went upstream without a token", counted.requests)
    });
    if fault.cost == Cost::Pause {
        // one at once and one a minute
        report.check(counted.token_requests <= 4, || {
            format!("{} requests against a pause", counted.token_requests)
        });
    }

    let end = now();
    match (&fault.order, &rig.front) {
        (Some(_), _) => rig.simulator.order(&json!({ "kind": "none" }), false).await,
        (None, front) => front.as_ref().unwrap().mend(),
    }
    report.served_again(&url).await;
    report.back(&proxy, end, fault.cost.bound()).await;
    report.counts(&rig.simulator.counted().await, 0);
    report
}

/// An issuer whose refusals cost a token each: a cold start during refusals, and a second time.
async fn charging(kind: &str) -> Report {
    let mut report = Report::default();
    let rig = Rig::start(false).await;
    let order = json!({ "kind": kind, "draws": true });
    rig.simulator.order(&order, false).await;
    let proxy = rig.proxy();
    let url = proxy.url().await;
    tokio::time::sleep(FAULT).await;
    for again in [true, false] {
        let end = now();
        let failing = proxy.log().is_failing_at(end);
        report.check(failing, || "the fault fell upon nothing".to_owned());
        rig.simulator.order(&json!({ "kind": "none" }), false).await;
        report.served_again(&url).await;
        report.back(&proxy, end, Cost::Pause.bound()).await;
        report.counts(&rig.simulator.counted().await, 1);
        if let (true, Some(token)) = (again, proxy.log().received.last()) {
            tokio::time::sleep_until(*token + BEFORE_RENEWAL).await;
            rig.simulator.order(&order, false).await;
            tokio::time::sleep(FAULT).await;
        }
    }
    report
}

/// The result of a case: how long it took until there was a token again, and broken promises.
#[derive(Debug, Default)]
struct Report {
    back: Vec<Duration>,
    broken: Vec<String>,
}

impl Report {
    fn check(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(otherwise());
        }
    }

    /// Asserts that no expired token was sent and the pool was not exceeded.
    fn counts(&mut self, counted: &Counted, rate_limited: u64) {
        let kept = counted.unauthorized == 0
            && counted.rate_limited <= rate_limited
            && counted.issued <= counted.allowed;
        self.check(kept, || format!("{counted:?}"));
    }

    /// Asserts that a token comes within `bound` after `end`.
    async fn back(&mut self, proxy: &Proxy, end: Instant, bound: Duration) {
        let came = |log: &Log| log.back_after(end).is_some();
        proxy.logged(bound + COLLIBRA_MINUTE, came).await;
        let log = proxy.log();
        let back = log.back_after(end);
        self.back.extend(back);
        self.check(back.is_some_and(|back| back <= bound + SLACK), || {
            format!("a token was back after {back:?}, not within {bound:?}: {log:#?}")
        });
    }

    /// Asserts that apps are served again, and got the promised response before.
    async fn served_again(&mut self, proxy: &str) {
        let http = http_client();
        let patience = now() + COLLIBRA_MINUTE * 5;
        while now() < patience {
            match load::call(&http, proxy).await {
                Got::Answer => return,
                Got::NoToken(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Got::Failure(what) => return self.broken.push(what),
            }
        }
        self.broken.push("service is not back".to_owned());
    }
}

/// Runs cases, several at once, prints their figures, and fails if any promise was broken.
async fn run<F>(cases: impl IntoIterator<Item = (String, F)>)
where
    F: Future<Output = Report> + Send + 'static,
{
    let mut running: JoinSet<(String, Report)> = cases
        .into_iter()
        .map(|(name, case)| async move {
            let _turn = AT_ONCE.acquire().await.unwrap();
            (name, case.await)
        })
        .collect();
    let mut broken = Vec::new();
    while let Some(ended) = running.join_next().await {
        let (name, report) = ended.unwrap();
        println!("{name:40} back after {:?}", report.back);
        broken.extend(report.broken.iter().map(|what| format!("{name}: {what}")));
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// A client with keep-alive connections; plain HTTP only.
fn http_client() -> reqwest::Client {
    static TLS: LazyLock<rustls::ClientConfig> = LazyLock::new(|| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth()
    });
    let builder = reqwest::Client::builder().no_proxy();
    builder
        .tls_backend_preconfigured(TLS.clone())
        .build()
        .unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test that measures real processes reads the real clock"
)]
fn now() -> Instant {
    Instant::now()
}
