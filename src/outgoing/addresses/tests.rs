//! Lookups against the tests' own name server, and the order in which addresses are tried.

use std::net::Ipv4Addr;

use tokio::time::advance;

use super::super::resolve::tests::{NameServer, Reply};
use super::*;

const LIMIT: Duration = Duration::from_secs(3);

fn targets(texts: &[&str]) -> Vec<Target> {
    let targets = texts.iter().map(|text| Target::parse(text));
    targets.map(Option::unwrap).collect()
}

fn fixed(texts: &[&str]) -> Arc<Addresses> {
    Addresses::new(targets(texts), LIMIT, LIMIT)
}

/// Returns the addresses of `acme.example:443`, as `server` resolves them.
fn asking(server: &NameServer) -> Arc<Addresses> {
    let servers = Servers::At(server.address);
    Addresses::with(targets(&["acme.example:443"]), LIMIT, LIMIT, servers)
}

fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

fn v6() -> IpAddr {
    "2001:db8::1".parse().unwrap()
}

fn at(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 443)
}

/// Returns all addresses in the order in which a call tries them.
fn order(addresses: &Addresses) -> Vec<SocketAddr> {
    let mut tried = Vec::new();
    while let Some(next) = addresses.next(&tried) {
        tried.push(next);
    }
    tried
}

#[test]
fn a_target_is_a_host_and_a_port() {
    for (text, host, port) in [
        ("10.1.2.3:443", "10.1.2.3", 443),
        ("[fd00::1]:8443", "fd00::1", 8443),
        ("acme-internal.example:1", "acme-internal.example", 1),
    ] {
        let target = Target::parse(text).unwrap();
        assert_eq!((&*target.host, target.port), (host, port));
    }
    for text in [
        "",
        "443",
        ":443",
        "acme",
        "acme:0",
        "acme:65536",
        "fd00::1",
        "fd00::1:443",
        "[acme]:443",
        "https://acme:443",
        "acme/x:443",
        "a b:443",
    ] {
        assert_eq!(Target::parse(text), None, "{text}");
    }
}

#[tokio::test]
async fn an_ip_address_needs_no_look_up() {
    let addresses = fixed(&["127.0.0.1:443", "[::1]:444"]);
    addresses.look_up_if_due();
    assert_eq!(addresses.due(), None);
    let expected: [SocketAddr; 2] = [
        "127.0.0.1:443".parse().unwrap(),
        "[::1]:444".parse().unwrap(),
    ];
    assert_eq!(addresses.resolve().await.unwrap(), expected);
}

#[tokio::test]
async fn the_families_take_turns() {
    let server = NameServer::start(
        Reply::Addresses(vec![v4(1), v4(2)], 60),
        Reply::Addresses(vec![v6()], 60),
    )
    .await;
    let found = asking(&server).resolve().await.unwrap();
    assert_eq!(found[0], at(v6()));
    assert_eq!(found.len(), 3);
}

#[tokio::test]
async fn a_family_without_an_answer_does_not_hold_up_the_other() {
    let server = NameServer::start(Reply::Addresses(vec![v4(1)], 60), Reply::Nothing).await;
    let addresses = asking(&server);
    addresses.look_up_if_due();
    let mut known = addresses.watch();
    let known = known.wait_for(|known| !known.current.is_empty()).await;
    assert!(known.unwrap().is_looking, "AAAA is still waited for");
    assert_eq!(order(&addresses), [at(v4(1))]);

    // the query is sent again, and the late answer is added
    server.reply_with(Reply::Nothing, Reply::Addresses(vec![v6()], 60));
    assert_eq!(addresses.resolve().await.unwrap(), [at(v6()), at(v4(1))]);
}

#[tokio::test]
async fn many_callers_share_one_look_up() {
    let server = NameServer::start(Reply::Addresses(vec![v4(1)], 60), Reply::NoSuchName).await;
    let addresses = asking(&server);
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let addresses = Arc::clone(&addresses);
        callers.spawn(async move { addresses.resolve().await.unwrap() });
    }
    for found in callers.join_all().await {
        assert_eq!(found, [at(v4(1))]);
    }
    assert_eq!(server.queries(), 2, "A and AAAA");
}

#[tokio::test]
async fn an_address_that_is_no_longer_named_is_the_last_resort() {
    let server = NameServer::start(Reply::Addresses(vec![v4(1)], 1), Reply::NoSuchName).await;
    let addresses = asking(&server);
    addresses.resolve().await.unwrap();
    server.reply_with(Reply::Addresses(vec![v4(2)], 1), Reply::NoSuchName);
    let due = addresses.due().unwrap();
    tokio::time::sleep_until(due).await;
    assert_eq!(addresses.resolve().await.unwrap(), [at(v4(2))]);
    assert_eq!(order(&addresses), [at(v4(2)), at(v4(1))]);

    // a name that stops resolving does not lose its addresses
    server.reply_with(Reply::NoSuchName, Reply::NoSuchName);
    tokio::time::sleep_until(addresses.due().unwrap()).await;
    assert_eq!(addresses.resolve().await.unwrap(), [at(v4(2))]);
    assert_eq!(addresses.problem(), Some(Problem::NoSuchName));
}

#[tokio::test]
async fn why_there_is_no_address_is_said() {
    let server = NameServer::start(Reply::NoSuchName, Reply::NoSuchName).await;
    let problem = asking(&server).resolve().await.unwrap_err();
    assert_eq!(problem, "DNS says that the name does not exist");
    let server = NameServer::start(Reply::Nothing, Reply::Nothing).await;
    let problem = asking(&server).resolve().await.unwrap_err();
    assert_eq!(problem, "no answer from DNS within 3s");
}

#[tokio::test(start_paused = true)]
async fn a_failing_address_is_tried_last_until_its_pause_is_over() {
    let addresses = fixed(&["192.0.2.1:443", "192.0.2.2:443"]);
    let [one, two] = [at(v4(1)), at(v4(2))];
    assert_eq!(order(&addresses), [one, two]);
    addresses.failed(one, timers(), "refused");
    assert_eq!(order(&addresses), [two, one]);
    advance(Duration::from_millis(1_001)).await;
    assert_eq!(order(&addresses), [one, two]);
    // each failure doubles the backoff
    addresses.failed(one, timers(), "refused");
    advance(Duration::from_millis(1_001)).await;
    assert_eq!(order(&addresses), [two, one]);
    advance(Duration::from_secs(1)).await;
    assert_eq!(order(&addresses), [one, two]);
    // if all have failed, the one whose backoff ends first is tried first
    addresses.failed(two, timers(), "refused");
    addresses.failed(one, timers(), "refused");
    assert_eq!(order(&addresses), [two, one]);
}

#[tokio::test(start_paused = true)]
async fn one_failure_that_many_callers_see_counts_once() {
    let addresses = fixed(&["192.0.2.1:443", "192.0.2.2:443"]);
    let [one, two] = [at(v4(1)), at(v4(2))];
    let began = timers();
    advance(Duration::from_millis(5)).await;
    for _ in 0..1_000 {
        addresses.failed(one, began, "refused");
    }
    advance(Duration::from_millis(1_001)).await;
    assert_eq!(
        order(&addresses),
        [one, two],
        "the pause is that of one failure"
    );
}

#[tokio::test(start_paused = true)]
async fn the_address_that_answered_last_is_tried_first() {
    let addresses = fixed(&["192.0.2.1:443", "192.0.2.2:443"]);
    let [one, two] = [at(v4(1)), at(v4(2))];
    addresses.answered(two);
    assert_eq!(order(&addresses), [two, one]);
    addresses.failed(two, timers(), "refused");
    assert_eq!(order(&addresses), [one, two]);
    addresses.answered(two);
    assert_eq!(order(&addresses), [two, one], "an answer ends the pause");
}
