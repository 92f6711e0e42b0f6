//! Handles a 401 from the API to a token that should be valid: gets another token for all, and
//! sends the request once more.
//!
//! A request is sent again only if its body is at hand (none, or up to 64 KiB), at most once, and
//! only for a 401. The API has done nothing then, so that even a POST may be repeated.

use http::StatusCode;

use super::context::Context;
use crate::telemetry::labels;

labels! {
    /// The result of a replay, as named in the metrics.
    pub enum Replay {
        /// The request was sent again, and the response was not a 401.
        Ok = "ok",
        /// It was sent again, and the response was a 401 again.
        Unauthorized = "unauthorized",
        /// It was not sent again, because its body was too large to keep.
        TooLarge = "too_large",
        /// It was not sent again, because there was no other token.
        NoToken = "no_token",
    }
}

/// Returns whether to send a request again with another token, for which it waits if needed. The
/// request was answered with `status`; `is_at_hand` if its body so far is still in memory.
pub(super) async fn is_due(context: &Context<'_>, status: StatusCode, is_at_hand: bool) -> bool {
    let Some(generation) = context.generation else {
        return false;
    };
    let client = &context.client;
    let (slot, metrics) = (&client.slot, &client.metrics);
    if status != StatusCode::UNAUTHORIZED {
        slot.accept(generation);
        if context.replayed {
            metrics.replay(Replay::Ok);
        }
        return false;
    }
    metrics.token_rejected();
    if context.replayed || !is_at_hand {
        // later requests get another token nevertheless
        slot.reject(generation);
        metrics.replay(if context.replayed {
            Replay::Unauthorized
        } else {
            Replay::TooLarge
        });
        return false;
    }
    let (clock, patience) = (context.clock(), client.wait_for_token);
    let newer = slot.replace(generation, clock, patience).await;
    if newer.is_none() {
        metrics.replay(Replay::NoToken);
    }
    newer.is_some()
}
