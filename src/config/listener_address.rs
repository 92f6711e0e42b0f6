//! The address of a listener and the mode of its socket file.

use std::net::SocketAddr;

use super::context::LoadContext;
use super::declare::Head;
use super::fault::Location;
use super::value::{Mode, Value};
use crate::socket::Address;

/// Resolves the address: a relative socket path starts from the configuration's directory, and gets
/// its mode. `table` shows both.
pub(super) fn resolve(
    address: Address,
    given: Option<(Mode, &Location)>,
    table: &Head,
    context: &LoadContext<'_>,
) -> Address {
    let address = match address {
        Address::Unix { path, mode } => {
            let mode = given.map_or(Mode(mode), |(mode, _)| mode);
            table.show_as("mode", mode.show(context));
            Address::Unix {
                path: context.path(&path),
                mode: mode.0,
            }
        }
        tcp @ Address::Tcp(_) => {
            if let Some((_, location)) = given {
                context.fault(location.fault(
                    "only a unix socket has a mode",
                    "remove it, or write \"unix:\" and a path as the address",
                ));
            }
            tcp
        }
    };
    table.show_as("address", address.show(context));
    address
}

/// Returns whether two addresses cannot both be listened on.
pub(super) fn clash(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Tcp(one), Address::Tcp(other)) => ports_clash(*one, *other),
        _ => one.is_at(other),
    }
}

fn ports_clash(one: SocketAddr, other: SocketAddr) -> bool {
    let same_family = one.is_ipv4() == other.is_ipv4();
    let one_covers_other = one.ip().is_unspecified() || other.ip().is_unspecified();
    // the system chooses a different port for each port 0
    one.port() == other.port()
        && one.port() != 0
        && (one.ip() == other.ip() || (same_family && one_covers_other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_clash_if_one_covers_the_other() {
        let read = |text: &str| super::super::value::address(text).unwrap();
        let clash = |one: &str, other: &str| clash(&read(one), &read(other));
        assert!(clash("127.0.0.1:80", "127.0.0.1:80"));
        assert!(clash("0.0.0.0:80", "127.0.0.1:80"));
        assert!(clash("[::1]:80", "[::]:80"));
        assert!(!clash("127.0.0.1:80", "127.0.0.1:81"));
        assert!(!clash("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!clash("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!clash("0.0.0.0:80", "[::]:80"));
        assert!(clash("unix:/run/a.sock", "unix:/run/a.sock"));
        assert!(!clash("unix:/run/a.sock", "unix:/run/b.sock"));
        assert!(!clash("unix:/run/a.sock", "127.0.0.1:80"));
    }
}
