//! Events of a fleet's members: they start, run, restart, and end during a request.

use std::time::Duration;

use super::load::Load;
use super::server::{Kind, Server};
use super::{MINUTE, Member, collibra, fleet, generation, holds, sharing};
use crate::support::wait::now;
use crate::support::{Proxy, file, http, until};

pub(super) fn ten_that_start_at_once_take_one_token_and_none_for_restarting(kind: Kind) {
    let (simulator, server, mut proxies) = sharing(kind, 10);
    assert_eq!(simulator.count("token_requests"), 1);
    let member = Member::sharing(&simulator, &server);
    let load = Load::begin(&proxies[..1]);
    // all but the one with the app, within less than half of a lifetime
    for proxy in &mut proxies[1..] {
        *proxy = member.start();
        holds(proxy);
    }
    load.end().assert_all_answered();
    let issued = simulator.of_client("issued");
    let renewed = generation(&proxies[9]);
    assert_eq!(issued, renewed, "as many as one alone");
}

pub(super) fn ten_run_for_a_quarter_of_an_hour_on_as_many_tokens_as_one(kind: Kind) {
    let issued = share(kind, 10, 15);
    assert!((5..=8).contains(&issued), "{issued}");
}

pub(super) fn one_that_is_told_of_the_server_while_it_runs_brings_its_token_there(kind: Kind) {
    let (simulator, server) = (collibra(), Server::start(kind));
    let alone = Member::alone(&simulator).text();
    let (_folder, path) = file("proxy.toml", alone.as_bytes());
    let proxy = Proxy::by_file(&path).start();
    holds(&proxy);
    let before = generation(&proxy);
    let sharing = Member::sharing(&simulator, &server);
    std::fs::write(&path, sharing.text()).unwrap();
    proxy.process.signal("HUP");
    server.record();
    let second = sharing.start();
    holds(&second);
    assert!(generation(&second) >= before);
    assert_eq!(simulator.of_client("issued"), generation(&second));
    let left = proxy.metric(r#"collibra_auth_proxy_store_up{store="memory"}"#);
    assert_eq!(left, None, "nothing is said of a store that is not used");
}

#[test]
fn ten_that_do_not_share_run_dry() {
    run_dry(10, 4);
}

/// Needs some 4 GB and an idle machine: `cargo test --test it hundred -- --ignored --nocapture`.
#[test]
#[ignore = "200 processes for two minutes"]
fn a_hundred_run_for_an_hour_on_as_many_tokens_as_one_and_dry_if_they_do_not_share() {
    let issued = share(Kind::Redis, 100, 60);
    assert!((22..=26).contains(&issued), "{issued}");
    run_dry(100, 60);
}

/// `cargo test --test it twenty -- --ignored --nocapture`.
#[cfg(feature = "kubernetes")]
#[test]
#[ignore = "20 processes for a minute"]
fn twenty_run_for_an_hour_by_a_secret_and_a_lease_on_as_many_tokens_as_one() {
    let issued = share(Kind::Kubernetes, 20, 60);
    assert!((22..=26).contains(&issued), "{issued}");
}

/// Runs `size` proxies that share a client for some simulated minutes without a failed call;
/// returns how many tokens were issued.
fn share(kind: Kind, size: usize, minutes: u32) -> u64 {
    let start = now();
    let (simulator, server, proxies) = sharing(kind, size);
    // one for all, plus renewals if the start took longer than a token stays new
    let renewals = start.elapsed().div_duration_f64(MINUTE * 19 / 8) as u64;
    let asked = simulator.count("token_requests");
    assert!(asked <= 1 + renewals, "{asked} and {renewals}");
    let (begin, before) = (now(), simulator.of_client("issued"));
    let load = Load::every(pause(size), &proxies);
    std::thread::sleep(MINUTE * minutes);
    let issued = simulator.of_client("issued") - before;
    load.end().assert_all_answered();
    let state = simulator.state();
    let (figures, seconds) = (server.figures(), begin.elapsed().as_secs_f64());
    let refused = simulator.of_client("rate_limited");
    println!(
        "{size} proxies that share, {minutes} minutes: {issued} tokens, {refused} x 429, 0 of {} requests failed; from the start, and for {seconds:.0} s since all had a token, the server counted {figures}",
        state["requests"]
    );
    assert_eq!((refused, &state["unauthorized"]), (0, &0.into()));
    issued
}

/// Runs `size` proxies without a shared store.
fn run_dry(size: usize, minutes: u32) {
    let simulator = collibra();
    let proxies = fleet(&Member::alone(&simulator), size);
    until("a token", || {
        (simulator.of_client("issued") > 0).then_some(())
    });
    let load = Load::every(pause(size), &proxies);
    std::thread::sleep(MINUTE * minutes);
    let tally = load.end();
    let (issued, refused) = (
        simulator.of_client("issued"),
        simulator.of_client("rate_limited"),
    );
    println!(
        "{size} proxies, each for itself, {minutes} minutes: {issued} tokens, {refused} x 429, {} requests without a token, {} answered",
        tally.without_token, tally.answers
    );
    assert!(refused > 10 && tally.without_token > 10, "{refused}");
}

/// Each app's pause for a total of two hundred calls a second.
fn pause(size: usize) -> Duration {
    Duration::from_millis(5) * u32::try_from(size).unwrap()
}

/// Kills or stops lease holders during their requests, `times` times; the first proxy is spared.
/// Returns the highest generation, how many tokens were issued, and how often the issuer refused.
fn hurt(kind: Kind, times: u64, how: impl FnMut(&mut Proxy, &Member<'_>)) -> (u64, u64) {
    let (simulator, server, mut proxies) = sharing(kind, 4);
    let member = Member::sharing(&simulator, &server);
    hurt_members(&member, &mut proxies, times, how)
}

/// The same with these proxies.
fn hurt_members(
    member: &Member<'_>,
    proxies: &mut [Proxy],
    times: u64,
    mut how: impl FnMut(&mut Proxy, &Member<'_>),
) -> (u64, u64) {
    let simulator = member.simulator;
    let load = Load::begin(&proxies[..1]);
    // slow enough to catch a lease holder during its request; half of the patience
    simulator.fault("token", "slow:80");
    let mut last = 0;
    for _ in 0..times {
        let asking = until("one that asks", || {
            let now = generation(&proxies[0]);
            assert!(now >= last, "generation {now} after {last}");
            last = now;
            proxies[1..].iter().position(asks)
        });
        how(&mut proxies[asking + 1], member);
        until("the next token", || {
            (generation(&proxies[0]) > last).then_some(())
        });
    }
    load.end().assert_all_answered();
    assert_eq!(simulator.of_client("rate_limited"), 0);
    (generation(&proxies[0]), simulator.of_client("issued"))
}

/// Returns whether a proxy's token request is in flight.
fn asks(proxy: &Proxy) -> bool {
    let status = http::get(proxy.admin, "/api/status").json();
    status["clients"][0]["next"]["kind"] == "answer"
}

pub(super) fn the_one_who_asks_may_be_killed_in_the_middle_of_it(kind: Kind) {
    kill(kind, 3);
}

pub(super) fn the_one_who_asks_may_be_stopped_beyond_the_end_of_its_lock(kind: Kind) {
    stop(kind, 3);
}

/// `cargo test --test it twenty_who_ask -- --ignored --nocapture`.
#[test]
#[ignore = "some minutes"]
fn twenty_who_ask_may_be_killed_and_as_many_stopped() {
    kill(Kind::Redis, 20);
    stop(Kind::Redis, 20);
}

/// As [`twenty_who_ask_may_be_killed_and_as_many_stopped`].
#[cfg(feature = "kubernetes")]
#[test]
#[ignore = "some minutes"]
fn twenty_who_ask_by_a_lease_may_be_killed_and_as_many_stopped() {
    kill(Kind::Kubernetes, 20);
    stop(Kind::Kubernetes, 20);
}

/// Four processes share a directory. The holder of the file's lock is stopped during its request.
/// The others get the next token as soon as its lease expires, and log why.
#[test]
fn the_holder_of_the_files_lock_may_be_stopped_beyond_its_lease() {
    let simulator = collibra();
    let folder = tempfile::tempdir().unwrap();
    let member = Member {
        store: format!("kind = \"file\"\npath = \"{}\"", folder.path().display()),
        ..Member::alone(&simulator)
    };
    let mut proxies = fleet(&member, 4);
    proxies.iter().for_each(holds);
    let (generation, issued) = hurt_members(&member, &mut proxies, 1, |proxy, _| {
        proxy.process.signal("STOP");
    });
    assert!(issued <= generation + 2, "{issued} {generation}");
    // the stopped one changes nothing when it goes on
    for proxy in &proxies {
        proxy.process.signal("CONT");
    }
    proxies.iter().for_each(holds);
    until("a word about the stopped process", || {
        let said = |proxy: &Proxy| {
            let log = proxy.process.err.all();
            log.contains("held this file's lock beyond its lease")
        };
        proxies.iter().any(said).then_some(())
    });
    assert_eq!(simulator.of_client("rate_limited"), 0);
    assert_eq!(simulator.count("unauthorized"), 0);
}

fn kill(kind: Kind, times: u64) {
    let mut points = points();
    let (generation, issued) = hurt(kind, times, |proxy, member| {
        std::thread::sleep(points.next().unwrap());
        proxy.process.signal("KILL");
        *proxy = member.start();
    });
    println!("{times} killed while they asked: {issued} tokens, generation {generation}");
    assert!(issued <= generation + 2 * times, "{issued} {generation}");
}

fn stop(kind: Kind, times: u64) {
    let mut points = points();
    let (generation, issued) = hurt(kind, times, |proxy, _| {
        std::thread::sleep(points.next().unwrap());
        proxy.process.signal("STOP");
        std::thread::sleep(MINUTE * 3 / 2);
        proxy.process.signal("CONT");
    });
    println!("{times} stopped while they asked: {issued} tokens, generation {generation}");
    assert!(issued <= generation + 2 * times, "{issued} {generation}");
}

/// Moments spread over a token request, and just after it.
fn points() -> impl Iterator<Item = Duration> {
    (0..).map(|nth| Duration::from_millis(nth * 37 % 110))
}
