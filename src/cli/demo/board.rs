//! The results of the demo's apps so far.

use std::collections::VecDeque;
use std::sync::Mutex;

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

/// The apps of one side.
#[derive(Debug)]
pub(super) struct Board {
    apps: Vec<Mutex<App>>,
}

/// One app's results.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct App {
    pub(super) answered: u64,
    pub(super) rate_limited: u64,
    pub(super) failed: u64,
    /// The recent calls, newest last.
    pub(super) strip: VecDeque<Call>,
}

impl Board {
    pub(super) fn new(apps: usize) -> Board {
        Board {
            apps: (0..apps).map(|_| Mutex::default()).collect(),
        }
    }

    /// Records how a call of this app ended.
    pub(super) fn note(&self, app: usize, call: Call) {
        let Ok(mut app) = self.apps[app].lock() else {
            return;
        };
        match call {
            Call::Answered => app.answered += 1,
            Call::RateLimited => app.rate_limited += 1,
            Call::Failed => app.failed += 1,
        }
        if app.strip.len() == STRIP {
            app.strip.pop_front();
        }
        app.strip.push_back(call);
    }

    /// The current results of all apps.
    pub(super) fn apps(&self) -> Vec<App> {
        self.apps
            .iter()
            .map(|app| app.lock().map(|app| app.clone()).unwrap_or_default())
            .collect()
    }
}

impl App {
    /// The calls that failed.
    pub(super) fn lost(&self) -> u64 {
        self.rate_limited + self.failed
    }
}

/// The sum over one side's apps.
pub(super) fn total(apps: &[App]) -> App {
    apps.iter().fold(App::default(), |sum, app| App {
        answered: sum.answered + app.answered,
        rate_limited: sum.rate_limited + app.rate_limited,
        failed: sum.failed + app.failed,
        strip: VecDeque::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_keeps_the_last_calls() {
        let board = Board::new(2);
        for _ in 0..STRIP {
            board.note(1, Call::RateLimited);
        }
        board.note(1, Call::Answered);
        board.note(1, Call::Failed);
        let apps = board.apps();
        assert_eq!(apps[0], App::default());
        assert_eq!((apps[1].answered, apps[1].lost()), (1, STRIP as u64 + 1));
        assert_eq!(apps[1].strip.len(), STRIP);
        assert_eq!(apps[1].strip.back(), Some(&Call::Failed));
        assert_eq!(total(&apps).lost(), STRIP as u64 + 1);
    }
}
