//! Apps that call through proxies at a fixed total rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::support::wait::now;
use crate::support::{PATIENCE, until};

/// The number of callers per proxy.
const CALLERS: u32 = 10;

/// Running apps.
pub(super) struct Load {
    runtime: tokio::runtime::Runtime,
    callers: JoinSet<Vec<String>>,
    answered: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    began: Instant,
}

/// Their results.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) answered: u64,
    pub(super) a_second: f64,
    /// Failures, described.
    pub(super) lost: Vec<String>,
}

impl Load {
    /// Calls each of `proxies` `a_second` times per second.
    pub(super) fn begin(proxies: &[SocketAddr], a_second: u32) -> Load {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (stop, stopped) = watch::channel(false);
        let answered = Arc::new(AtomicU64::new(0));
        let mut callers = JoinSet::new();
        for proxy in proxies {
            for _ in 0..CALLERS {
                let pause = Duration::from_secs(1) * CALLERS / a_second;
                let caller = caller(*proxy, pause, Arc::clone(&answered), stopped.clone());
                callers.spawn_on(caller, runtime.handle());
            }
        }
        Load {
            runtime,
            callers,
            answered,
            stop,
            began: now(),
        }
    }

    /// Waits for `more` responses.
    pub(super) fn answered(&self, more: u64) {
        let enough = self.answered.load(Ordering::Relaxed) + more;
        until("the apps' answers", || {
            (self.answered.load(Ordering::Relaxed) >= enough).then_some(())
        });
    }

    /// Stops the apps after their current calls.
    pub(super) fn end(self) -> Tally {
        self.stop.send_replace(true);
        let lost = self.runtime.block_on(self.callers.join_all());
        let answered = self.answered.load(Ordering::Relaxed);
        Tally {
            answered,
            a_second: answered as f64 / self.began.elapsed().as_secs_f64(),
            lost: lost.into_iter().flatten().collect(),
        }
    }
}

async fn caller(
    proxy: SocketAddr,
    pause: Duration,
    answered: Arc<AtomicU64>,
    mut stopped: watch::Receiver<bool>,
) -> Vec<String> {
    let http = reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(no_tls())
        .timeout(PATIENCE)
        .build()
        .unwrap();
    let mut lost = Vec::new();
    let mut ticks = tokio::time::interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return lost,
            _ = ticks.tick() => {}
        }
        let url = format!("http://{proxy}/rest/2.0/application/info");
        match http.get(url).send().await {
            Ok(answer) if answer.status() == 200 => match answer.bytes().await {
                Ok(_) => {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => lost.push(format!("a body: {error:?}")),
            },
            Ok(answer) => lost.push(format!("{answer:?}")),
            Err(error) => lost.push(format!("{error:?}")),
        }
    }
}

/// TLS is not used here, but the library needs a configuration.
fn no_tls() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}
