//! The demo's apps: programs that call the API repeatedly, as exporters and lineage jobs do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Client, StatusCode};
use tokio::task::JoinSet;

use crate::cli::own_token::OwnToken;
use crate::oauth;
use crate::token::ports::Outcome;

/// How long an app pauses between two calls.
const PAUSE: Duration = Duration::from_millis(150);

/// The timeout of a demo call; reached only if something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many recent calls an app shows on a wide screen.
pub(super) const STRIP: usize = 60;

/// How an app's call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Successfully.
    Answered,
    /// With a 429, for the token or the call itself.
    RateLimited,
    /// With any other failure.
    Failed,
}

/// One app's results.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct App {
    pub(super) answered: u64,
    /// The calls that failed.
    pub(super) lost: u64,
    /// The recent calls, newest last.
    pub(super) strip: Vec<Call>,
}

impl App {
    /// Records how a call ended.
    fn note(&mut self, call: Call) {
        match call {
            Call::Answered => self.answered += 1,
            Call::RateLimited | Call::Failed => self.lost += 1,
        }
        if self.strip.len() == STRIP {
            self.strip.remove(0);
        }
        self.strip.push(call);
    }
}

/// The results of one side's apps.
pub(super) type Board = Arc<Mutex<Vec<App>>>;

/// Starts `apps` apps against `base`, which has no trailing slash. Each requests its own tokens as
/// `client`, as well-behaved programs do; without one, the proxy attaches them. They stop when the
/// set is dropped.
///
/// # Errors
/// If the token endpoint or the HTTP client is unusable.
pub(super) fn start(
    apps: usize,
    base: &str,
    client: Option<&oauth::Config>,
    board: &Board,
) -> anyhow::Result<JoinSet<()>> {
    let mut running = JoinSet::new();
    for index in 0..apps {
        let mut token = client.map(OwnToken::of).transpose()?;
        let http = Client::builder().no_proxy().timeout(PATIENCE).build()?;
        let url = format!("{base}/rest/2.0/assets?limit=1");
        let board = Arc::clone(board);
        running.spawn(async move {
            // start the apps at different moments
            tokio::time::sleep(PAUSE.mul_f64(index as f64 / 8.0)).await;
            loop {
                let call = call(&http, &url, token.as_mut()).await;
                if let Ok(mut apps) = board.lock() {
                    apps[index].note(call);
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
    Ok(running)
}

/// Calls `url` once, with an own `token` if there is one.
async fn call(http: &Client, url: &str, token: Option<&mut OwnToken>) -> Call {
    let mut request = http.get(url);
    if let Some(token) = token {
        request = match token.get().await {
            Ok(token) => request.bearer_auth(token.expose()),
            Err(error) if error.outcome == Outcome::RateLimited => return Call::RateLimited,
            Err(_) => return Call::Failed,
        };
    }
    match request.send().await.map(|answer| answer.status()) {
        Ok(StatusCode::OK) => Call::Answered,
        Ok(StatusCode::TOO_MANY_REQUESTS) => Call::RateLimited,
        _ => Call::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_keeps_the_last_calls() {
        let mut app = App::default();
        for _ in 0..STRIP {
            app.note(Call::RateLimited);
        }
        app.note(Call::Answered);
        app.note(Call::Failed);
        assert_eq!((app.answered, app.lost), (1, STRIP as u64 + 1));
        assert_eq!(app.strip.len(), STRIP);
        assert_eq!(app.strip.last(), Some(&Call::Failed));
    }
}
