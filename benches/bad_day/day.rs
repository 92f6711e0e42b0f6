//! The schedule: what goes wrong when, and what the proxy must report of it.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::proxy::Said;
use crate::relay::Mode;
use crate::rig::Rig;
use kit::wait::now;

/// How many steps of equal length there are.
pub(crate) const STEPS: u32 = 12;

/// How long the proxy may take to say what it must: files are noticed after 5 s, and the end of an
/// outage after 10.
const SOON: Duration = Duration::from_secs(15);

/// The pause between two looks at what it says.
const LOOK: Duration = Duration::from_millis(500);

/// What the log says of a configuration that is refused.
const REFUSED: &str = "configuration refused";

/// How many callers are stuck at the admin address, and how many hold connections of the listener
/// while descriptors are short.
const STUCK: usize = 200;
const HOLDERS: usize = 200;

/// How many files more than it has the proxy may open while descriptors are short.
const ROOM: u64 = 24;

/// A part of the run.
pub(crate) struct Step {
    /// What is wrong during it.
    pub(crate) name: &'static str,
    /// When it begins.
    pub(crate) at: Instant,
    /// The messages seen in this step.
    pub(crate) said: Vec<String>,
    /// Resident memory at its end, in MB.
    pub(crate) megabytes: f64,
}

/// The outcome of the run.
pub(crate) struct Day {
    /// Its steps.
    pub(crate) steps: Vec<Step>,
    /// From the moment at which the API went down to that at which it was back.
    pub(crate) outage: Range<Instant>,
    /// Promises that were broken.
    pub(crate) broken: Vec<String>,
}

/// A run in progress.
struct Run<'r> {
    rig: &'r Rig,
    begin: Instant,
    length: Duration,
    steps: Vec<Step>,
    broken: Vec<String>,
}

impl Run<'_> {
    /// Waits for the end of the current step, and begins another.
    async fn step(&mut self, name: &'static str) {
        self.until(1.0).await;
        if let Some(last) = self.steps.last_mut() {
            last.megabytes = self.rig.proxy.megabytes();
        }
        println!("{name}");
        self.steps.push(Step {
            name,
            at: now(),
            said: Vec::new(),
            megabytes: f64::NAN,
        });
    }

    /// Waits until this share of the current step is over.
    async fn until(&self, share: f64) {
        if let Some(before) = self.steps.len().checked_sub(1) {
            let whole = self.length * u32::try_from(before).unwrap_or(u32::MAX);
            let end = self.begin + whole + self.length.mul_f64(share);
            tokio::time::sleep_until(end.into()).await;
        }
    }

    fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        println!("    {text}");
        if let Some(step) = self.steps.last_mut() {
            step.said.push(text);
        }
    }

    fn hold(&mut self, holds: bool, what: impl Into<String>) {
        let name = self.steps.last().map_or("before", |step| step.name);
        if !holds {
            let what = what.into();
            println!("    BROKEN: {what}");
            self.broken.push(format!("{name}: {what}"));
        }
    }

    /// Waits until all three places say something; what `find` makes of it goes into the table.
    async fn says(&mut self, what: &str, find: impl Fn(&Said) -> Option<String>) {
        let begin = now();
        loop {
            let said = tokio::task::block_in_place(|| self.rig.proxy.said());
            if let Some(text) = find(&said) {
                return self.note(text);
            }
            if begin.elapsed() > SOON {
                return self.hold(
                    false,
                    format!("{what} is not said within {SOON:?}: {said:#?}"),
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for a line of the log.
    async fn logs(&mut self, message: &str) -> serde_json::Value {
        let begin = now();
        loop {
            if let Some(line) = self.rig.proxy.log.find(message) {
                self.note(format!(
                    "log: {}",
                    line["message"].as_str().unwrap_or_default()
                ));
                return line;
            }
            if begin.elapsed() > SOON {
                self.hold(
                    false,
                    format!("`{message}` is not in the log within {SOON:?}"),
                );
                return serde_json::Value::Null;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// All three places say that nothing is wrong with this; `None` if one says otherwise.
    async fn is_well(&mut self) {
        self.says("that all is well", |said| {
            let client = said.client();
            let is_well = said.api["ready"] == true
                && said.api["refused_configuration"].is_null()
                && client["failure"].is_null()
                && client["store"]["problem"].is_null()
                && client["api"]["failing_since"].is_null()
                && client["token"]["usable"] == true;
            let is_quiet = [
                "configuration refused",
                "fail since",
                "have been failing",
                "without",
            ]
            .iter()
            .all(|word| !said.table.contains(word) && !said.verbose.contains(word));
            (is_well && is_quiet).then(|| "all is well".to_owned())
        })
        .await;
    }
}

/// Goes through all steps in `length`.
pub(crate) async fn live(rig: &mut Rig, length: Duration) -> Day {
    let silent = rig.dns_is_silent.clone();
    let mut redis = rig.redis.take();
    let mut day = Run {
        rig,
        begin: now(),
        length: length / STEPS,
        steps: Vec::new(),
        broken: Vec::new(),
    };
    let rig = day.rig;
    let [first, second] = &rig.relays;
    let dns = |is_silent| {
        silent
            .iter()
            .for_each(|s| s.store(is_silent, Ordering::Relaxed))
    };

    day.step("calm").await;
    day.is_well().await;

    day.step("log unread").await;
    rig.proxy.log.pause(true);

    day.step("DNS silent, log unread").await;
    dns(true);
    // every call of the next seconds takes a new connection
    for tenth in 1..10 {
        rig.relays
            .iter()
            .for_each(|relay| relay.close_connections());
        day.until(f64::from(tenth) / 10.0).await;
    }
    day.is_well().await;
    if silent.is_none() {
        day.note("DNS left out: a name server takes root");
    }

    day.step("an address lost, DNS silent, log unread").await;
    let before = [first, second].map(|relay| relay.answers());
    first.set(Mode::Blackhole);
    day.until(0.5).await;
    dns(false);
    day.until(0.9).await;
    day.is_well().await;
    let [by_first, by_second] = [first, second].map(|relay| relay.answers());
    day.note(format!(
        "{} calls by the other address",
        by_second - before[1]
    ));
    // what was under way in the first moment
    let late = by_first - before[0];
    day.hold(late < 50, format!("{late} answers by the lost address"));

    day.step("API down, log unread").await;
    first.set(Mode::Down);
    second.set(Mode::Down);
    let down = now();
    tokio::time::sleep(LOOK).await;
    day.says("the outage of the API", |said| {
        let api = &said.client()["api"];
        let message = api["last_failure"]["message"].as_str()?;
        let is_told = api["failing_since"].is_string()
            && api["last_failure"]["kind"] == "connect"
            && said.api["ready"] == true
            && said.have(message)
            && said.table.contains("have been failing for")
            && said.verbose.contains("fail since");
        is_told.then(|| message.to_owned())
    })
    .await;
    day.until(0.4).await;
    first.set(Mode::Open);
    second.set(Mode::Open);
    let outage = down..now();
    day.is_well().await;
    day.until(0.95).await;
    let dropped = "collibra_auth_proxy_log_lines_dropped_total";
    let dropped = tokio::task::block_in_place(|| rig.proxy.metric(dropped));
    day.hold(dropped > 0.0, "no log line was dropped");
    day.note(format!("log_lines_dropped_total {dropped}"));

    day.step("log read again, Redis gone").await;
    rig.proxy.log.pause(false);
    let lost = day.logs("log lines were lost").await;
    let lost = lost["lines"].as_f64().unwrap_or_default();
    day.hold(
        lost >= dropped,
        format!("{lost} lines are said to be lost of {dropped}"),
    );
    day.logs("calls of the API fail").await;
    let over = day.logs("the API answers again").await;
    let told = lasted(&over).unwrap_or_default();
    let whole = outage.end - outage.start;
    day.hold(
        told.abs_diff(whole) <= Duration::from_secs(2),
        format!("the outage of {whole:?} is said to have lasted {told:?}"),
    );
    if silent.is_some() {
        day.logs("the name cannot be resolved").await;
    }
    match &mut redis {
        Some(redis) => redis.stop(),
        None => day.note("left out: there is no redis-server"),
    }
    if redis.is_some() {
        day.says("the store's problem", |said| {
            let problem = said.client()["store"]["problem"].as_str()?;
            let is_told = said.have(problem) && said.verbose.contains("without the store");
            is_told.then(|| problem.to_owned())
        })
        .await;
        let up = "collibra_auth_proxy_store_up{store=\"redis\"}";
        let up = tokio::task::block_in_place(|| rig.proxy.metric(up));
        day.hold(up == 0.0, format!("store_up is {up}"));
    }

    day.step("secret torn, DNS silent, Redis gone").await;
    dns(true);
    rig.write_secret(true);
    day.says("the wrong secret", |said| {
        let failure = &said.client()["failure"];
        let message = failure["message"].as_str()?;
        let is_told = failure["outcome"] == "invalid_client"
            && said.api["ready"] == true
            && said.have(message);
        is_told.then(|| message.to_owned())
    })
    .await;
    day.until(0.5).await;
    rig.write_secret(false);
    day.says("a token by the mended secret", |said| {
        let client = said.client();
        let is_there = client["failure"].is_null() && client["token"]["usable"] == true;
        is_there.then(|| "token received by the mended secret".to_owned())
    })
    .await;
    dns(false);

    day.step("Redis back").await;
    if let Some(redis) = &mut redis {
        tokio::task::block_in_place(|| redis.go_on());
    }
    day.is_well().await;

    day.step("configuration broken").await;
    rig.write_config("[client.catalog.poool]\ncapacity = 5\n");
    day.says("the refused configuration", |said| {
        let refused = &said.api["refused_configuration"];
        let fault = refused["faults"][0].as_str()?;
        let is_told = fault.contains("poool") && said.have(fault) && said.api["ready"] == true;
        is_told.then(|| fault.to_owned())
    })
    .await;

    day.step("200 stuck admin callers, configuration broken")
        .await;
    let stuck = Crowd::gather(rig.proxy.admin, STUCK / 2, STUCK / 2);
    day.until(0.5).await;
    rig.write_config("");
    day.is_well().await;

    day.step("descriptors short, 200 stuck admin callers").await;
    // the most of several looks: the stuck callers come and go
    let mut open = 0.0_f64;
    for _ in 0..10 {
        open = open.max(tokio::task::block_in_place(|| {
            rig.proxy.metric("process_open_fds")
        }));
        tokio::time::sleep(LOOK).await;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count"
    )]
    let before = rig.proxy.limit_open_files(Some(open as u64 + ROOM));
    let holders = Crowd::gather(rig.proxy.address, HOLDERS, 0);
    day.logs("cannot accept a connection").await;
    day.until(0.9).await;
    drop(holders);
    // a file that cannot be opened for want of descriptors has not changed
    let warnings = rig.proxy.log.warnings();
    let refused = warnings
        .iter()
        .filter(|(line, _)| line.starts_with(REFUSED));
    let refused: usize = refused.map(|(_, count)| count).sum();
    day.hold(
        refused == 1,
        format!("a configuration was refused {refused} times so far, not once"),
    );
    rig.proxy.limit_open_files(before);
    drop(stuck);

    day.step("calm again").await;
    day.is_well().await;
    day.until(1.0).await;
    if let Some(last) = day.steps.last_mut() {
        last.megabytes = rig.proxy.megabytes();
    }
    Day {
        steps: day.steps,
        outage,
        broken: day.broken,
    }
}

/// How long the outage lasted whose end a line of the log tells.
fn lasted(line: &serde_json::Value) -> Option<Duration> {
    let (_, rest) = line["message"].as_str()?.split_once(", ")?;
    let (lasted, _) = rest.split_once(" after")?;
    humantime::parse_duration(lasted).ok()
}
