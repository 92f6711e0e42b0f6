//! Handles a 401 from the API to a token that should be valid: gets another token for all, and
//! sends the request once more.
//!
//! A request is sent again only if its body is at hand (none, or up to 64 KiB), at most once, and
//! only for a 401. The API has done nothing then, so that even a POST may be repeated.

use http::StatusCode;

use super::listener_state::Client;
use crate::clock::Clock;
use crate::telemetry::labels;

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unauthorized {
    /// The generation of its token.
    pub(super) generation: u64,
    /// Whether it was sent a second time.
    pub(super) replayed: bool,
    /// Whether the whole body read so far is still in memory.
    pub(super) body_at_hand: bool,
}

/// How to handle the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplayDecision {
    /// Pass it on.
    Pass,
    /// Drop it and send the request again: there is another token.
    SendAgain,
}

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

/// Decides about a response with `status`; waits for another token if needed.
pub(super) async fn decide(
    client: &Client,
    clock: &dyn Clock,
    status: StatusCode,
    asked: Unauthorized,
) -> ReplayDecision {
    let metrics = &client.metrics;
    if status != StatusCode::UNAUTHORIZED {
        client.slot.accept(asked.generation);
        if asked.replayed {
            metrics.replay(Replay::Ok);
        }
        return ReplayDecision::Pass;
    }
    metrics.token_rejected();
    if asked.replayed || !asked.body_at_hand {
        // later requests get another token nevertheless
        client.slot.reject(asked.generation);
        metrics.replay(if asked.replayed {
            Replay::Unauthorized
        } else {
            Replay::TooLarge
        });
        return ReplayDecision::Pass;
    }
    let newer = client
        .slot
        .replace(asked.generation, clock, client.wait_for_token)
        .await;
    if newer.is_none() {
        metrics.replay(Replay::NoToken);
        return ReplayDecision::Pass;
    }
    ReplayDecision::SendAgain
}
