//! The notifications that a Redis server pushed. Only the newest counts, so one slot holds them
//! all, however many arrive.

use std::sync::Mutex;

use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use crate::store::locked;

/// The newest unread notification.
#[derive(Debug, Default)]
pub(super) struct Notices {
    newest: Mutex<Option<Notice>>,
    arrived: Notify,
}

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// The version that is stored now.
    Version(String),
    /// Something else, such as the end of the connection: the server must be polled.
    Poll,
}

impl Notices {
    /// Stores `push`. A pending `Poll` covers every later notification.
    pub(super) fn push(&self, push: &PushInfo) {
        let notice = Notice::of(push);
        let mut newest = locked(&self.newest);
        if *newest != Some(Notice::Poll) {
            *newest = Some(notice);
        }
        drop(newest);
        self.arrived.notify_one();
    }

    /// Takes the unread notification, if there is one.
    pub(super) fn take(&self) -> Option<Notice> {
        locked(&self.newest).take()
    }

    /// Waits for a notification.
    pub(super) async fn next(&self) -> Notice {
        loop {
            match self.take() {
                Some(notice) => return notice,
                None => self.arrived.notified().await,
            }
        }
    }
}

impl Notice {
    fn of(push: &PushInfo) -> Notice {
        let version = match (&push.kind, push.data.as_slice()) {
            (PushKind::Message, [_channel, Value::BulkString(version)]) if !version.is_empty() => {
                std::str::from_utf8(version).ok()
            }
            _ => None,
        };
        version.map_or(Notice::Poll, |version| Notice::Version(version.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(version: &str) -> PushInfo {
        PushInfo {
            kind: PushKind::Message,
            data: vec![
                Value::BulkString(b"channel".to_vec()),
                Value::BulkString(version.as_bytes().to_vec()),
            ],
        }
    }

    #[tokio::test]
    async fn the_newest_counts_unless_a_poll_is_pending() {
        let notices = Notices::default();
        assert_eq!(notices.take(), None);
        notices.push(&message("1"));
        notices.push(&message("2"));
        assert_eq!(notices.next().await, Notice::Version("2".to_owned()));
        // an empty version: a member came or left
        notices.push(&message(""));
        notices.push(&message("3"));
        assert_eq!(notices.next().await, Notice::Poll);
        assert_eq!(notices.take(), None);
    }
}
