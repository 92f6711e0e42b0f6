//! Apps that send 50 calls a second through the proxy, over 10 connections.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

const CALLERS: u32 = 10;
const EVERY: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(10);

/// The result of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Got {
    Answer,
    /// 503 `no-token`, well-formed; `Retry-After` in seconds.
    NoToken(u64),
    /// Anything else, described.
    Failure(String),
}

/// Sends one request and classifies the response.
pub(super) async fn call(http: &reqwest::Client, proxy: &str) -> Got {
    let url = format!("{proxy}/rest/2.0/application/info");
    let answer = match http.get(url).timeout(PATIENCE).send().await {
        Ok(answer) => answer,
        Err(e) => return Got::Failure(format!("{e:?}")),
    };
    let status = answer.status();
    let header = |name: &str| {
        let value = answer.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let reason = header("x-collibra-auth-proxy");
    let retry_after = header("retry-after").and_then(|value| value.parse::<u64>().ok());
    let body = match answer.text().await {
        Ok(body) => body,
        Err(e) => return Got::Failure(format!("{status} and then {e:?}")),
    };
    if status == 200 && reason.is_none() {
        return Got::Answer;
    }
    let told: Value = serde_json::from_str(&body).unwrap_or_default();
    match (status.as_u16(), reason.as_deref(), retry_after) {
        (503, Some("no-token"), Some(seconds)) if told["statusCode"] == 503 => {
            Got::NoToken(seconds)
        }
        _ => Got::Failure(format!("{status} {reason:?} {retry_after:?} {body}")),
    }
}

/// Running apps.
pub(super) struct Load {
    callers: JoinSet<Tally>,
    answers: watch::Sender<u64>,
    stop: watch::Sender<bool>,
}

/// The results of all apps.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) answers: u64,
    pub(super) others: Vec<Got>,
}

impl Load {
    pub(super) fn begin(proxy: &str) -> Load {
        let proxy: Arc<str> = proxy.into();
        let (stop, stopped) = watch::channel(false);
        let answers = watch::Sender::new(0);
        let callers = (0..CALLERS)
            .map(|nth| {
                let offset = EVERY * nth / CALLERS;
                caller(Arc::clone(&proxy), offset, answers.clone(), stopped.clone())
            })
            .collect();
        Load {
            callers,
            answers,
            stop,
        }
    }

    /// Waits until the apps got more than `least` answers: a busy machine takes longer for them.
    pub(super) async fn is_answered(&self, least: u64) -> bool {
        let mut answers = self.answers.subscribe();
        let enough = answers.wait_for(|answers| *answers > least);
        tokio::time::timeout(PATIENCE, enough).await.is_ok()
    }

    /// Stops the apps after their current calls.
    pub(super) async fn end(self) -> Tally {
        self.stop.send_replace(true);
        let each = self.callers.join_all().await;
        each.into_iter().fold(Tally::default(), |mut sum, one| {
            sum.answers += one.answers;
            sum.others.extend(one.others);
            sum
        })
    }
}

async fn caller(
    proxy: Arc<str>,
    offset: Duration,
    answers: watch::Sender<u64>,
    mut stopped: watch::Receiver<bool>,
) -> Tally {
    let http = super::http_client();
    let mut tally = Tally::default();
    let mut ticks = tokio::time::interval_at(super::now() + offset, EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return tally,
            _ = ticks.tick() => {}
        }
        match call(&http, &proxy).await {
            Got::Answer => {
                tally.answers += 1;
                answers.send_modify(|answers| *answers += 1);
            }
            other => tally.others.push(other),
        }
    }
}
