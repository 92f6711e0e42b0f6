//! Three sentinels, a primary and a replica.

use std::path::Path;

use super::server::listed;
use crate::support::redis::Redis;
use crate::support::until;

/// The running servers.
pub(super) struct Sentinels {
    servers: [Redis; 2],
    pub(super) sentinels: Vec<Redis>,
}

impl Sentinels {
    /// Starts them; the sentinels know each other and the replica.
    pub(super) fn start() -> Sentinels {
        Sentinels::with(None, &[])
    }

    /// The same with these flags of the servers. With a folder all speak TLS, as
    /// [`Redis::with_tls`].
    pub(super) fn with(folder: Option<&Path>, flags: &[&str]) -> Sentinels {
        let start = |flags: &[&str]| match folder {
            None => Redis::with(flags),
            Some(folder) => Redis::with_tls(folder, flags),
        };
        let primary = start(flags);
        let port = primary.tls_port.unwrap_or(primary.port);
        let of = format!("127.0.0.1 {port}");
        let replica = start(&[flags, &["--replicaof", &of]].concat());
        let sentinels = (0..3).map(|_| Redis::sentinel(port, folder)).collect();
        let all = Sentinels {
            servers: [primary, replica],
            sentinels,
        };
        all.settle();
        all
    }

    /// Waits until the replica is in step, and all sentinels know that.
    pub(super) fn settle(&self) {
        until("a replica that is in step", || {
            let said = self.primary().say(&[b"INFO", b"replication"]);
            let said = String::from_utf8_lossy(&said).into_owned();
            said.contains("state=online").then_some(())
        });
        until("sentinels that know each other and the replica", || {
            let know = self.sentinels.iter().all(|sentinel| {
                let said = sentinel.say(&[b"INFO", b"sentinel"]);
                let said = String::from_utf8_lossy(&said).into_owned();
                said.contains("status=ok") && said.contains("slaves=1,sentinels=3")
            });
            know.then_some(())
        });
    }

    /// The `[store]` table for them.
    pub(super) fn store(&self) -> String {
        let sentinels = listed(&self.sentinels);
        format!("kind = \"redis\"\nurl = \"redis+sentinel://{sentinels}/main\"")
    }

    /// The primary.
    pub(super) fn primary(&self) -> &Redis {
        until("a primary", || {
            self.servers.iter().find(|redis| redis.is_primary())
        })
    }

    /// Kills the primary, and waits until the other server is promoted.
    pub(super) fn kill_primary(&mut self) {
        let old = self.servers.iter().position(Redis::is_primary).unwrap();
        self.servers[old].stop();
        self.primary();
    }

    /// Starts the server that was killed, as a replica.
    pub(super) fn restart_killed(&mut self) {
        let primary = self.primary().port;
        let killed = self.servers.iter_mut().find(|redis| redis.port != primary);
        killed.unwrap().go_on_as_replica_of(primary);
    }
}
