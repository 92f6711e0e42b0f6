//! The address of a listener and the mode of its socket file.

use std::net::SocketAddr;

use super::fault::Report;
use super::location::{Field, Spanned};
use super::parse::LoadContext;
use crate::socket::Address;

/// Resolves the address: a relative socket path starts from the configuration's directory, and gets
/// its mode.
pub(super) fn parse(
    address: Address,
    mode: Field<String>,
    context: &LoadContext<'_>,
    report: &mut Report,
) -> Address {
    let given = mode.given();
    match address {
        Address::Unix { path, mode } => Address::Unix {
            path: context.path(&path),
            mode: given
                .map_or(Some(mode), |spanned| self::mode(&spanned, report))
                .unwrap_or(mode),
        },
        tcp @ Address::Tcp(_) => {
            if let Some(spanned) = given {
                report.fault(spanned.location.fault(
                    "only a unix socket has a mode",
                    "remove it, or write \"unix:\" and a path as the address",
                ));
            }
            tcp
        }
    }
}

/// Parses permissions as `chmod` takes them.
fn mode(spanned: &Spanned<String>, report: &mut Report) -> Option<u32> {
    let digits = spanned.value.trim_start_matches("0o");
    let mode = u32::from_str_radix(digits, 8).ok();
    let fits = |mode: &u32| *mode <= 0o777 && !digits.starts_with('+');
    if let Some(mode) = mode.filter(fits) {
        if mode & 0o600 == 0o600 {
            return Some(mode);
        }
        report.fault(spanned.location.fault(
            "its own user could not use the socket",
            "write a mode that begins with 6 or 7, like \"0660\"",
        ));
        return None;
    }
    report.fault(spanned.location.fault(
        "this is no mode of a file",
        "write it as for chmod, in quotes, like \"0660\": user, group, others",
    ));
    None
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
