//! What a server told without being asked. Only the newest counts, so that one place holds it all,
//! however much is told.

use std::sync::Mutex;

use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use crate::store::locked;

/// What was told and not heard yet.
#[derive(Debug, Default)]
pub(super) struct Notices {
    newest: Mutex<Option<Notice>>,
    came: Notify,
}

/// What a server told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// The stamp of what is kept now.
    Kept(String),
    /// Something else, like the end of the connection: it is to be looked at.
    Look,
}

impl Notices {
    /// The server told this. That it is to be looked at covers whatever is told later.
    pub(super) fn tell(&self, push: &PushInfo) {
        let told = Notice::of(push);
        let mut newest = locked(&self.newest);
        if *newest != Some(Notice::Look) {
            *newest = Some(told);
        }
        drop(newest);
        self.came.notify_one();
    }

    /// What was told, if anything was.
    pub(super) fn take(&self) -> Option<Notice> {
        locked(&self.newest).take()
    }

    /// Waits until something is told.
    pub(super) async fn next(&self) -> Notice {
        loop {
            match self.take() {
                Some(notice) => return notice,
                None => self.came.notified().await,
            }
        }
    }
}

impl Notice {
    fn of(push: &PushInfo) -> Notice {
        let stamp = match (&push.kind, push.data.as_slice()) {
            (PushKind::Message, [_channel, Value::BulkString(stamp)]) if !stamp.is_empty() => {
                std::str::from_utf8(stamp).ok()
            }
            _ => None,
        };
        stamp.map_or(Notice::Look, |stamp| Notice::Kept(stamp.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(stamp: &str) -> PushInfo {
        PushInfo {
            kind: PushKind::Message,
            data: vec![
                Value::BulkString(b"channel".to_vec()),
                Value::BulkString(stamp.as_bytes().to_vec()),
            ],
        }
    }

    #[tokio::test]
    async fn the_newest_counts_unless_the_server_is_to_be_looked_at() {
        let notices = Notices::default();
        assert_eq!(notices.take(), None);
        notices.tell(&message("1"));
        notices.tell(&message("2"));
        assert_eq!(notices.next().await, Notice::Kept("2".to_owned()));
        // an empty stamp: a member came or left
        notices.tell(&message(""));
        notices.tell(&message("3"));
        assert_eq!(notices.next().await, Notice::Look);
        assert_eq!(notices.take(), None);
    }
}
