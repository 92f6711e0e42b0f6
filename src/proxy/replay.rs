//! What is done when the API answers 401 to a token that should be live: another token for all,
//! and the request once more.
//!
//! A request is sent again if its body is at hand (none, or up to 64 KiB), once at most, and only for
//! a 401: the API has then done nothing with it, so that even a POST may be sent again.

use http::StatusCode;

use super::plan::Client;
use crate::clock::Clock;
use crate::telemetry::Label;

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unauthorized {
    /// Which token went with it.
    pub(super) generation: u64,
    /// Whether it was its second way.
    pub(super) replayed: bool,
    /// Whether all of its body that was read is still there.
    pub(super) body_at_hand: bool,
}

/// What to do with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Pass it on.
    Pass,
    /// Drop it and send the request again: there is another token.
    SendAgain,
}

/// How the replay of a request ended, as the metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// The request was sent again, and answered other than with 401.
    Ok,
    /// It was sent again, and answered with 401 again.
    Unauthorized,
    /// It was not sent again, for its body was too large to keep.
    TooLarge,
    /// It was not sent again, for there was no other token.
    NoToken,
}

impl Label for Replay {
    const ALL: &'static [Replay] = &[
        Replay::Ok,
        Replay::Unauthorized,
        Replay::TooLarge,
        Replay::NoToken,
    ];

    fn label(self) -> &'static str {
        match self {
            Replay::Ok => "ok",
            Replay::Unauthorized => "unauthorized",
            Replay::TooLarge => "too_large",
            Replay::NoToken => "no_token",
        }
    }
}

/// Decides on an answer with `status`; waits for another token if it takes one.
pub(super) async fn decide(
    client: &Client,
    clock: &dyn Clock,
    status: StatusCode,
    asked: Unauthorized,
) -> Next {
    let metrics = &client.metrics;
    if status != StatusCode::UNAUTHORIZED {
        client.slot.accept(asked.generation);
        if asked.replayed {
            metrics.replay(Replay::Ok);
        }
        return Next::Pass;
    }
    metrics.token_rejected();
    if asked.replayed || !asked.body_at_hand {
        // the next requests are to have another token all the same
        client.slot.reject(asked.generation);
        metrics.replay(if asked.replayed {
            Replay::Unauthorized
        } else {
            Replay::TooLarge
        });
        return Next::Pass;
    }
    let newer = client
        .slot
        .replace(asked.generation, clock, client.wait_for_token)
        .await;
    if newer.is_none() {
        metrics.replay(Replay::NoToken);
        return Next::Pass;
    }
    Next::SendAgain
}
