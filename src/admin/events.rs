//! `GET /api/events`: the status every second and new points of the history, as server-sent events
//! for the status page and other watchers.
//!
//! `event: status` has the form of `GET /api/status`, `event: history` that of `GET /api/history`.
//! The first of each is sent immediately.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::history::STEP;
use super::response::costly;
use super::view::View;

/// The most concurrent watchers.
const MOST: usize = 16;

static WATCHERS: Semaphore = Semaphore::const_new(MOST);

/// The interval between two statuses.
const TICK: Duration = Duration::from_secs(1);

/// Serves events until the caller leaves or the admin address closes.
pub(super) async fn events(
    State(view): State<Arc<View>>,
    Extension(closing): Extension<CancellationToken>,
) -> Response {
    let Ok(permit) = WATCHERS.try_acquire() else {
        let text = format!("{MOST} callers watch already: ask /api/status instead\n");
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ticks = stream::unfold((ticks, 0), |(mut ticks, nth)| async move {
        ticks.tick().await;
        Some((nth, (ticks, nth + 1)))
    });
    let kinds = ticks.flat_map(|nth: u64| {
        let count = 1 + usize::from(nth.is_multiple_of(STEP.as_secs()));
        stream::iter(["status", "history"].into_iter().take(count))
    });
    let events = kinds.then(move |kind| {
        let _held = &permit;
        let view = Arc::clone(&view);
        let event = Event::default().event(kind);
        costly(move || match kind {
            "history" => event.json_data(view.past().report()),
            _ => event.json_data(view.report()),
        })
    });
    Sse::new(events.take_until(closing.cancelled_owned())).into_response()
}
