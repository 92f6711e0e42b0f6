//! The demo's apps: programs that call the API repeatedly, as exporters and lineage jobs do.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde::Deserialize;
use tokio::task::JoinSet;

use super::board::{Board, Call};
use crate::clock::{Clock, Instant, SystemClock};
use crate::simulator::{DEMO_CLIENT_ID, DEMO_CLIENT_SECRET};

/// How long an app pauses between two calls.
const PAUSE: Duration = Duration::from_millis(150);

/// The timeout of a demo call; reached only if something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// How an app gets its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tokens {
    /// It requests its own token and uses it until it expires, as well-behaved programs do.
    Own,
    /// The proxy attaches one.
    FromProxy,
}

/// Starts the apps of `board` against `base`, which has no trailing slash. They stop when the set
/// is dropped.
pub(super) fn start(base: &str, tokens: Tokens, board: &Arc<Board>, apps: usize) -> JoinSet<()> {
    let mut running = JoinSet::new();
    for index in 0..apps {
        let app = App {
            base: base.to_owned(),
            tokens,
            http: Client::builder()
                .no_proxy()
                .timeout(PATIENCE)
                .build()
                .unwrap_or_default(),
            held: None,
        };
        running.spawn(app.run(index, Arc::clone(board)));
    }
    running
}

struct App {
    base: String,
    tokens: Tokens,
    http: Client,
    /// The current token and its expiry.
    held: Option<(String, Instant)>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: u64,
}

impl App {
    async fn run(mut self, index: usize, board: Arc<Board>) {
        // start the apps at different moments
        tokio::time::sleep(PAUSE.mul_f64(index as f64 / 8.0)).await;
        loop {
            let call = self.call().await;
            board.note(index, call);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn call(&mut self) -> Call {
        let url = format!("{}/rest/2.0/assets?limit=1", self.base);
        let request = match self.token().await {
            Ok(Some(token)) => self.http.get(url).bearer_auth(token),
            Ok(None) => self.http.get(url),
            Err(call) => return call,
        };
        match request.send().await.map(|answer| answer.status()) {
            Ok(StatusCode::OK) => Call::Answered,
            Ok(StatusCode::TOO_MANY_REQUESTS) => Call::RateLimited,
            Ok(_) => {
                self.held = None;
                Call::Failed
            }
            Err(_) => Call::Failed,
        }
    }

    /// The token to send; requests a new one if the current one has expired.
    async fn token(&mut self) -> Result<Option<String>, Call> {
        if self.tokens == Tokens::FromProxy {
            return Ok(None);
        }
        if let Some((token, ends)) = &self.held
            && SystemClock.now() < *ends
        {
            return Ok(Some(token.clone()));
        }
        let asked = SystemClock.now();
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", DEMO_CLIENT_ID),
            ("client_secret", DEMO_CLIENT_SECRET),
        ];
        let url = format!("{}/rest/oauth/v2/token", self.base);
        let answer = self.http.post(url).form(&form).send().await;
        let answer = answer.map_err(|_| Call::Failed)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::TOO_MANY_REQUESTS => return Err(Call::RateLimited),
            _ => return Err(Call::Failed),
        }
        let granted: Granted = answer.json().await.map_err(|_| Call::Failed)?;
        let ends = asked + Duration::from_secs(granted.expires_in);
        self.held = Some((granted.access_token.clone(), ends));
        Ok(Some(granted.access_token))
    }
}
