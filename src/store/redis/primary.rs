//! Finds the server that has a client's keys: the primary that sentinels report, or the cluster's
//! primary for the slot.

use redis::{RedisConnectionInfo, RedisError, Value, cmd};
use tokio::time::timeout;

use super::link::{Connection, DEADLINE, Link};

/// A server's name or address, and its port.
type Address = (String, u16);

impl Link {
    /// Connects to the primary that the first of `nodes` that answers reports: to the one called
    /// `name` if they are sentinels, otherwise to that of the client's slot.
    pub(super) async fn primary(
        &self,
        nodes: &[Address],
        name: Option<&str>,
    ) -> Result<Connection, String> {
        let (host, port) = self.primary_address(nodes, name).await?;
        let mut connection = self.open(&host, port, &self.login).await?;
        if name.is_some() {
            // during a failover a sentinel may be late; a user who may not ask this notices at the
            // first write
            let role = cmd("ROLE");
            let role: Result<Vec<Value>, RedisError> =
                role.query_async(&mut connection.commands).await;
            if let Ok([Value::BulkString(role), ..]) = role.as_deref()
                && role != b"master"
            {
                return Err(format!(
                    "{}: {host}:{port} is not the primary now; a failover is in progress",
                    self.server
                ));
            }
        }
        Ok(connection)
    }

    async fn primary_address(
        &self,
        nodes: &[Address],
        name: Option<&str>,
    ) -> Result<Address, String> {
        // leaves time for another one
        let all = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let patience = DEADLINE / all.saturating_add(1).max(2);
        let mut problem = format!("{}: no server is configured", self.server);
        for (host, port) in nodes {
            let asked = async {
                match name {
                    Some(name) => self.named(host, *port, name).await,
                    None => self.owner(host, *port).await,
                }
            };
            match timeout(patience, asked).await {
                Ok(Ok(address)) => return Ok(address),
                Ok(Err(why)) => problem = why,
                Err(_elapsed) => {
                    problem = format!("{}: {host}:{port} does not answer", self.server);
                }
            }
        }
        Err(problem)
    }

    /// The primary that the sentinel at `host` reports.
    async fn named(&self, host: &str, port: u16, name: &str) -> Result<Address, String> {
        let ask = async |login: &RedisConnectionInfo| {
            let mut sentinel = self.open(host, port, login).await?;
            let mut get = cmd("SENTINEL");
            get.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
            Ok::<_, String>(get.query_async(&mut sentinel.commands).await)
        };
        // sentinels have users of their own, and mostly none
        let nobody = RedisConnectionInfo::default().set_skip_set_lib_name();
        let mut named: Result<Option<Address>, RedisError> = ask(&nobody).await?;
        if let Err(error) = &named
            && matches!(error.code(), Some("NOAUTH" | "NOPERM"))
        {
            named = ask(&self.login.clone().set_db(0)).await?;
        }
        named.map_err(|error| self.problem(&error))?.ok_or_else(|| {
            format!(
                "the sentinel {host}:{port} knows no primary named {}; see the store's url",
                name.escape_debug()
            )
        })
    }

    /// The primary of the slot: the node at `host`, or the one to which it redirects.
    async fn owner(&self, host: &str, port: u16) -> Result<Address, String> {
        let mut node = self.open(host, port, &self.login).await?;
        let mut asked = cmd("EXISTS");
        let asked = asked.arg(&self.key).query_async(&mut node.commands).await;
        let Err::<(), RedisError>(error) = asked else {
            return Ok((host.to_owned(), port));
        };
        let moved = error
            .redirect_node()
            .filter(|_| error.code() == Some("MOVED"));
        let moved = moved.and_then(|(address, _slot)| address.rsplit_once(':'));
        let Some((named, Ok(port))) = moved.map(|(named, port)| (named, port.parse())) else {
            return Err(self.problem(&error));
        };
        // a node that does not know the other's address means its own
        let named = if matches!(named, "" | "?") {
            host
        } else {
            named
        };
        Ok((named.to_owned(), port))
    }
}
