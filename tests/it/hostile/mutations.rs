//! Thousands of requests made of the table's by chance: spliced, bits flipped, lines doubled,
//! swapped and dropped, nasty tokens put in. The chance is of a seed, so that a failure comes again.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;

use super::case::{self, Rig};
use super::cases;
use crate::support::recorder::{HEADER, mark, marks};
use crate::support::wait::now;
use crate::support::{Connection, until};

const SEEDS: [u64; 3] = [0x5EED_0001, 0x5EED_0002, 0x5EED_0003];

/// How many are sent for all seeds.
const REQUESTS: usize = 20_000;

/// How many connections there are at once.
const CALLERS: usize = 48;

/// A caller that has no answer by then ends its own side.
const GIVES_UP: Duration = Duration::from_millis(250);

/// By then every connection has ended.
const DEADLINE: Duration = Duration::from_secs(20);

/// What is put in, in one place or another.
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
    "POST /smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\nhello",
    "GET /smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "TRACE ",
    "CONNECT ",
    "\u{e9}",
    "\u{ff}\u{fe}",
];

#[test]
fn no_mutation_turns_the_proxy() {
    let limits = "header_timeout = \"1s\"\nmax_connections = 10000";
    let rig = Rig::with(limits);
    let mut corpus = corpus(&rig);
    corpus.retain(|bytes| bytes.len() < 4096);
    let each = REQUESTS / SEEDS.len() + 1;
    let next = AtomicUsize::new(0);
    let told = Mutex::new(Told::default());
    let start = now();
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth >= each * SEEDS.len() {
                        return;
                    }
                    let seed = SEEDS[nth / each] ^ ((nth % each) as u64).rotate_left(32);
                    let mutated = mutate(&mut Rng::with_seed(seed), &corpus);
                    let heard = Heard::of(&rig, &mutated, &mark(nth));
                    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                    told.add(nth, heard, &mutated);
                }
            });
        }
    });
    let mut rig = rig;
    let told = told.into_inner().unwrap();
    println!("{told:?} in {:?}", start.elapsed());

    assert!(told.faults.is_empty(), "{}", told.faults.join("\n"));
    // what was understood: once for each answer, and once at most for who did not wait for it
    for (nth, (answers, gave_up, bytes)) in told.callers.iter().enumerate() {
        let Some((answers, gave_up)) = Some((*answers, *gave_up)) else {
            continue;
        };
        let _ = nth;
        let mark = &bytes.0;
        let understood = rig.recorder.with_mark(mark).len();
        assert!(
            understood <= answers + usize::from(gave_up),
            "{understood} requests understood, {answers} answered, of\n{:?}",
            String::from_utf8_lossy(&bytes.1)
        );
    }
    rig.recorder.assert_no_faults();

    // it has all been for nothing
    assert!(rig.proxy.process.runs());
    until("the end of every connection", || {
        let open = "collibra_auth_proxy_connections{listener=\"local\"}";
        (rig.proxy.metric(open) == Some(0.0)).then_some(())
    });
    assert_eq!(rig.proxy.get("/probe").status, 200);
    let peak = rig.proxy.process.memory_kib("VmHWM");
    assert!(peak < 200 * 1024, "{peak} KiB");
    let logged = rig.proxy.process.err.all();
    assert!(!logged.contains("panicked"), "{logged}");
    assert!(
        told.answered > REQUESTS / 10,
        "too few were requests at all"
    );
}
