//! Notifies the service manager of the process's state: sd_notify(3), the protocol of systemd's
//! `Type=notify`, which others support too.
//!
//! Ready means that the process is listening. It does not wait for a token: an unreachable issuer
//! must not fail the start, and requests wait for the token anyway.
//!
//! Guarantees: without a service manager nothing is sent. An unreachable one neither ends the
//! process nor delays it by more than a second.

use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tracing::debug;

/// How long a message may wait for space in the service manager's queue.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service manager, if there is one.
#[derive(Clone, Debug, Default)]
pub struct ServiceManager {
    /// The address of its socket.
    socket: Option<SocketAddr>,
    /// The watchdog's timeout.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The service manager that `environment` names (`NOTIFY_SOCKET`, `WATCHDOG_USEC`,
    /// `WATCHDOG_PID`) for this process id.
    #[must_use]
    pub fn of(environment: impl Fn(&str) -> Option<String>, process: u32) -> ServiceManager {
        let socket = environment("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let for_us = environment("WATCHDOG_PID").is_none_or(|id| id == process.to_string());
        let watchdog = environment("WATCHDOG_USEC").filter(|_| for_us);
        let watchdog = watchdog.and_then(|time| time.parse().ok());
        ServiceManager {
            socket: socket.and_then(|name| {
                address(&name)
                    .inspect_err(|error| debug!("NOTIFY_SOCKET is not an address: {error}"))
                    .ok()
            }),
            watchdog: watchdog.filter(|time| *time > 0).map(Duration::from_micros),
        }
    }

    /// Reports that the process serves; `status` is a line for humans.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", line(status)));
    }

    /// Reports that it reloads its configuration, until [`ServiceManager::ready`].
    pub fn reloading(&self) {
        let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
        let now = now.as_micros();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
    }

    /// Reports that it is shutting down; `status` is a line for humans.
    pub fn stopping(&self, status: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS={}", line(status)));
    }

    /// Reports that the process with this id replaces this one.
    pub fn succeeded_by(&self, successor: u32) {
        self.tell(&format!("MAINPID={successor}"));
    }

    /// Notifies the watchdog, if there is one for this process, for as long as the runtime is
    /// alive. Never returns.
    pub async fn keep_watchdog_quiet(self) {
        let Some(patience) = self.watchdog else {
            return std::future::pending().await;
        };
        // half of the timeout, as sd_watchdog_enabled(3) recommends
        let mut due = tokio::time::interval(patience / 2);
        loop {
            due.tick().await;
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket, message) {
            debug!("the service manager cannot be notified: {error}");
        }
    }
}

fn send(socket: &SocketAddr, message: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    sender.set_write_timeout(Some(PATIENCE))?;
    sender.send_to_addr(message.as_bytes(), socket)?;
    Ok(())
}

/// Parses a path, or `@` and a name in the abstract namespace, which only Linux has.
fn address(name: &str) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.strip_prefix('@') {
        return <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name);
    }
    SocketAddr::from_pathname(name)
}

/// Makes `text` one line, because the protocol's messages are lines.
fn line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: u32 = 77;

    fn manager(variables: &[(&str, &str)]) -> ServiceManager {
        let value = |name: &str| {
            let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
            Some((*value).to_owned())
        };
        ServiceManager::of(value, ID)
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut message = [0; 4096];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    #[test]
    fn it_is_told_in_its_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = manager(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
        manager.ready("two\nlines");
        assert_eq!(received(&socket), "READY=1\nSTATUS=two lines");
        manager.reloading();
        let told = received(&socket);
        let time = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(time.parse::<u64>().unwrap() > 0);
        manager.stopping("soon");
        assert_eq!(received(&socket), "STOPPING=1\nSTATUS=soon");
        manager.succeeded_by(5);
        assert_eq!(received(&socket), "MAINPID=5");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn it_may_listen_in_the_abstract_namespace() {
        let name = format!("collibra-auth-proxy-test-{}", std::process::id());
        let address = address(&format!("@{name}")).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        manager(&[("NOTIFY_SOCKET", &format!("@{name}"))]).ready("on");
        assert_eq!(received(&socket), "READY=1\nSTATUS=on");
    }

    #[test]
    fn one_that_is_not_there_is_not_told() {
        manager(&[]).ready("on");
        manager(&[("NOTIFY_SOCKET", "/none/such")]).ready("on");
        manager(&[("NOTIFY_SOCKET", &"x".repeat(500))]).ready("on");
    }

    #[tokio::test]
    async fn the_watchdog_hears_of_it_in_half_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = manager(&[
            ("NOTIFY_SOCKET", path.to_str().unwrap()),
            ("WATCHDOG_USEC", "20000"),
            ("WATCHDOG_PID", "77"),
        ]);
        let telling = tokio::spawn(manager.keep_watchdog_quiet());
        let heard = tokio::task::spawn_blocking(move || {
            (0..3).map(|_| received(&socket)).collect::<Vec<_>>()
        });
        assert_eq!(heard.await.unwrap(), ["WATCHDOG=1"; 3]);
        telling.abort();
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let watchdog = |id: &str, time: &str| {
            manager(&[("WATCHDOG_PID", id), ("WATCHDOG_USEC", time)]).watchdog
        };
        assert_eq!(watchdog("77", "20000"), Some(Duration::from_millis(20)));
        assert_eq!(watchdog("78", "20000"), None);
        assert_eq!(watchdog("77", "0"), None);
        assert_eq!(watchdog("77", "soon"), None);
    }
}
