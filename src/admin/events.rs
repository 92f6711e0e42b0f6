//! `GET /api/events`: the status every second and new points of the history, as server-sent events
//! for the status page and other watchers.
//!
//! `event: status` has the form of `GET /api/status`, `event: history` that of `GET /api/history`.
//! The first of each is sent immediately.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::history::STEP;
use super::response::{TEXT, costly};
use super::view::View;

/// The most concurrent watchers.
const WATCHERS: usize = 16;

/// The interval between two events.
const TICK: Duration = Duration::from_secs(1);

/// Admits up to [`WATCHERS`] watchers until the admin address closes.
#[derive(Clone, Debug)]
pub(super) struct Watching {
    permits: Arc<Semaphore>,
    closing: CancellationToken,
}

/// A watching caller.
struct Watcher {
    view: Arc<View>,
    closing: CancellationToken,
    ticks: Interval,
    /// The number of statuses sent so far.
    sent: u64,
    is_history_next: bool,
    _permit: OwnedSemaphorePermit,
}

impl Watching {
    /// Returns no watchers yet; every stream ends when `closing` is cancelled.
    pub(super) fn until(closing: CancellationToken) -> Watching {
        Watching {
            permits: Arc::new(Semaphore::new(WATCHERS)),
            closing,
        }
    }
}

/// Serves events until the caller leaves or the admin address closes.
pub(super) async fn events(
    State(view): State<Arc<View>>,
    Extension(watching): Extension<Watching>,
) -> Response {
    let Ok(permit) = watching.permits.try_acquire_owned() else {
        let text = format!("{WATCHERS} callers watch already: ask /api/status instead\n");
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            [(CONTENT_TYPE, TEXT)],
            text,
        )
            .into_response();
    };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watcher = Watcher {
        view,
        closing: watching.closing,
        ticks,
        sent: 0,
        is_history_next: false,
        _permit: permit,
    };
    let events = stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((Ok::<_, Infallible>(event), watcher))
    });
    Sse::new(events).into_response()
}

impl Watcher {
    /// The next event; `None` at the end. Every few statuses, the history follows.
    async fn next(&mut self) -> Option<Event> {
        let is_history = std::mem::take(&mut self.is_history_next);
        if !is_history {
            tokio::select! {
                () = self.closing.cancelled() => return None,
                _ = self.ticks.tick() => {}
            }
            self.is_history_next = self.sent.is_multiple_of(STEP.as_secs());
            self.sent += 1;
        }
        let view = Arc::clone(&self.view);
        let event = costly(move || {
            if is_history {
                Event::default().event("history").json_data(view.history())
            } else {
                Event::default().event("status").json_data(view.report())
            }
        });
        event.await.ok()
    }
}
