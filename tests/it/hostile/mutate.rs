//! Random mutations of the tables' requests: spliced, with flipped bits, with lines doubled,
//! swapped and dropped, with nasty tokens inserted. Pure: the seed determines the result, so that a
//! failure can be repeated.

use fastrand::Rng;

/// Tokens to insert.
const TOKENS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\r\n\r\n",
    " ",
    "\t",
    "\x0b",
    ":",
    ";",
    ",",
    "//",
    "\\",
    "..",
    "%2e",
    "%2f",
    "%00",
    "@",
    "#",
    "*",
    "0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\n",
    "ffffffffffffffff\r\n",
    "-1",
    "+1",
    "0x",
    "HTTP/1.0",
    "HTTP/1.1",
    "HTTP/2.0",
    "chunked",
    "identity",
    "Host: evil.example\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 43\r\n",
    "X-Mark: {m}\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding : chunked\r\n",
    " Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Connection: authorization\r\n",
    "Connection: content-length, transfer-encoding\r\n",
    "Expect: 100-continue\r\n",
    "Upgrade: websocket\r\n",
    "Authorization: Bearer forged\r\n",
    "Cookie: a=b\r\n",
    "X_Y: 1\r\n",
    "POST /smuggled-{m} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\nhello",
    "GET /smuggled-{m} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "TRACE ",
    "CONNECT ",
    "\u{e9}",
    "\u{ff}\u{fe}",
];

/// Makes one request that is one or a few changes away from some of `corpus`; `mark` replaces the
/// mark in the tokens.
pub(super) fn mutate(seed: u64, corpus: &[Vec<u8>], mark: &str) -> Vec<u8> {
    let mut rng = Rng::with_seed(seed);
    let mut bytes = pick(&mut rng, corpus).clone();
    // most have few changes: with more, nearly all are refused
    for _ in 0..rng.usize(..4).max(1) {
        match rng.u8(0..9) {
            0 => splice(&mut rng, &mut bytes, corpus),
            1 => flip(&mut rng, &mut bytes),
            2..=4 => insert(&mut rng, &mut bytes, mark),
            5 => cut(&mut rng, &mut bytes),
            change => lines(&mut rng, &mut bytes, change),
        }
    }
    bytes
}

fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(..from.len())]
}

/// Joins the start of one and the end of another.
fn splice(rng: &mut Rng, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let other = pick(rng, corpus);
    bytes.truncate(rng.usize(..=bytes.len()));
    bytes.extend_from_slice(&other[rng.usize(..=other.len())..]);
}

fn flip(rng: &mut Rng, bytes: &mut [u8]) {
    if !bytes.is_empty() {
        let at = rng.usize(..bytes.len());
        bytes[at] ^= 1 << rng.u8(..8);
    }
}

fn insert(rng: &mut Rng, bytes: &mut Vec<u8>, mark: &str) {
    let token = pick(rng, TOKENS).replace("{m}", mark);
    // a whole line has most effect at the start of a line
    let starts: Vec<usize> = (1..bytes.len())
        .filter(|at| bytes[at - 1] == b'\n')
        .collect();
    let at = if token.ends_with('\n') && !starts.is_empty() && rng.u8(..4) > 0 {
        *pick(rng, &starts)
    } else {
        rng.usize(..=bytes.len())
    };
    bytes.splice(at..at, token.bytes());
}

fn cut(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let start = rng.usize(..=bytes.len());
    let end = (start + rng.usize(..16)).min(bytes.len());
    bytes.drain(start..end);
}

/// Doubles, drops or swaps lines.
fn lines(rng: &mut Rng, bytes: &mut Vec<u8>, change: u8) {
    let mut lines: Vec<Vec<u8>> = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    if lines.is_empty() {
        return;
    }
    let (one, other) = (rng.usize(..lines.len()), rng.usize(..lines.len()));
    match change {
        6 => lines.insert(other, lines[one].clone()),
        7 => drop(lines.remove(one)),
        _ => lines.swap(one, other),
    }
    *bytes = lines.concat();
}
