//! Finds the server that has a client's keys: the primary that sentinels report, or the cluster's
//! primary for the slot.

use redis::aio::MultiplexedConnection;
use redis::{RedisConnectionInfo, RedisError, Value, cmd};
use tokio::time::timeout;

use super::link::{Connection, DEADLINE, Link};

impl Link {
    /// Connects to the primary that a sentinel reports, and checks that it is one: during a
    /// failover a sentinel may be late.
    pub(super) async fn primary_of_sentinels(
        &self,
        sentinels: &[(String, u16)],
        name: &str,
    ) -> Result<Connection, String> {
        let mut problem = format!("{}: no sentinel is configured", self.server());
        for (host, port) in sentinels {
            let named = timeout(patience(sentinels), self.named(host, *port, name));
            match named
                .await
                .unwrap_or_else(|_| Err(self.no_answer(host, *port)))
            {
                Ok((host, port)) => return self.primary_at(&host, port).await,
                Err(why) => problem = why,
            }
        }
        Err(problem)
    }

    /// The primary that the sentinel at `host` reports.
    async fn named(&self, host: &str, port: u16, name: &str) -> Result<(String, u16), String> {
        let ask = async |login: &RedisConnectionInfo| {
            let mut sentinel = self.open(host, port, login, false).await.map_err(Err)?;
            let mut get = cmd("SENTINEL");
            get.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
            let named: Result<Option<(String, u16)>, RedisError> =
                get.query_async(&mut sentinel.commands).await;
            named.map_err(Ok)
        };
        // sentinels have users of their own, and mostly none
        let nobody = RedisConnectionInfo::default().set_skip_set_lib_name();
        let named = match ask(&nobody).await {
            Err(Ok(error)) if matches!(error.code(), Some("NOAUTH" | "NOPERM")) => {
                let login = self.login().clone().set_db(0);
                ask(&login).await
            }
            named => named,
        };
        match named {
            Ok(Some(named)) => Ok(named),
            Ok(None) => Err(format!(
                "the sentinel {host}:{port} knows no primary named {}; see the store's url",
                name.escape_debug()
            )),
            Err(Ok(error)) => Err(self.problem(&error)),
            Err(Err(problem)) => Err(problem),
        }
    }

    async fn primary_at(&self, host: &str, port: u16) -> Result<Connection, String> {
        let mut connection = self.open(host, port, self.login(), true).await?;
        let role: Result<Vec<Value>, RedisError> =
            cmd("ROLE").query_async(&mut connection.commands).await;
        // a user without this permission notices at the first write
        let role = role.ok().and_then(|role| match role.first() {
            Some(Value::BulkString(role)) => Some(role.clone()),
            _ => None,
        });
        match role {
            Some(role) if role != b"master" => Err(format!(
                "{}: {host}:{port} is not the primary now; a failover is in progress",
                self.server()
            )),
            _ => Ok(connection),
        }
    }

    /// Connects to the primary that has the client's slot, as a node reports it.
    pub(super) async fn primary_of_cluster(
        &self,
        nodes: &[(String, u16)],
    ) -> Result<Connection, String> {
        let mut problem = format!("{}: no node is configured", self.server());
        for (host, port) in nodes {
            let owner = async {
                let mut node = self.open(host, *port, self.login(), false).await?;
                let owner = self.owner(&mut node.commands, host).await;
                owner.map_err(|error| self.problem(&error))
            };
            let owner = timeout(patience(nodes), owner).await;
            match owner.unwrap_or_else(|_| Err(self.no_answer(host, *port))) {
                Ok(Some((host, port))) => return self.open(&host, port, self.login(), true).await,
                Ok(None) => problem = format!("{}: no node has the slot now", self.server()),
                Err(why) => problem = why,
            }
        }
        Err(problem)
    }

    /// The primary of the slot, as the node at `host` reports it.
    async fn owner(
        &self,
        node: &mut MultiplexedConnection,
        host: &str,
    ) -> Result<Option<(String, u16)>, RedisError> {
        let slot: u16 = cmd("CLUSTER")
            .arg("KEYSLOT")
            .arg(self.key())
            .query_async(node)
            .await?;
        let slots: Vec<Vec<Value>> = cmd("CLUSTER").arg("SLOTS").query_async(node).await?;
        let owner = slots.iter().find_map(|range| match range.as_slice() {
            [Value::Int(first), Value::Int(last), Value::Array(owner), ..]
                if (*first..=*last).contains(&i64::from(slot)) =>
            {
                Some(owner)
            }
            _ => None,
        });
        Ok(owner.and_then(|owner| match owner.as_slice() {
            [address, Value::Int(port), ..] => {
                let address = match address {
                    Value::BulkString(text) => String::from_utf8(text.clone()).ok()?,
                    _ => String::new(),
                };
                // a node that does not know its own address means itself
                let address = match address.as_str() {
                    "" | "?" => host.to_owned(),
                    _ => address,
                };
                Some((address, u16::try_from(*port).ok()?))
            }
            _ => None,
        }))
    }

    fn no_answer(&self, host: &str, port: u16) -> String {
        format!("{}: {host}:{port} does not answer", self.server())
    }
}

/// The timeout for one of several nodes, which leaves time for another.
fn patience(nodes: &[(String, u16)]) -> std::time::Duration {
    let nodes = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    DEADLINE / nodes.saturating_add(1).max(2)
}
