//! HTTP/2 control-frame floods: the proxy closes the connection with GOAWAY ENHANCE_YOUR_CALM, and
//! neither its memory nor its log grows.

use std::time::Duration;

use crate::support::frames::{
    self, ACK, ENHANCE_YOUR_CALM, Frames, PING, PRIORITY, Received, SETTINGS, WINDOW_UPDATE, frame,
};
use crate::support::h2_caller::Served;
use crate::support::wait::now;

/// The longest time a flood may last.
const LONGEST: Duration = Duration::from_secs(30);

/// Frames sent between two reads.
const BATCH: usize = 2_000;

/// One kind of flood.
struct Flood {
    name: &'static str,
    /// Whether stream 1 has an upload in flight.
    has_stream: bool,
    frame: Vec<u8>,
}

fn floods() -> Vec<Flood> {
    let flood = |name, has_stream, frame| Flood {
        name,
        has_stream,
        frame,
    };
    let one = 1_u32.to_be_bytes();
    vec![
        flood("acknowledged pings", false, frame(PING, ACK, 0, &[7; 8])),
        flood("settings", false, frame(SETTINGS, 0, 0, &[])),
        flood("priorities", false, frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
        flood(
            "priorities on a stream",
            true,
            frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]),
        ),
        flood("window updates", false, frame(WINDOW_UPDATE, 0, 0, &one)),
        flood(
            "window updates of a stream",
            true,
            frame(WINDOW_UPDATE, 0, 1, &one),
        ),
        flood("empty data", true, frame(frames::DATA, 0, 1, &[])),
        flood("frames of no known kind", false, frame(0xbe, 0, 0, &[])),
    ]
}

#[test]
fn each_flood_is_closed_with_enhance_your_calm() {
    let served = Served::with("");
    served.serves();
    let before = served.proxy.process.memory_kib("VmRSS");
    let lines = || served.proxy.process.err.all().lines().count();
    let lines_before = lines();
    let mut faults = Vec::new();
    for Flood {
        name,
        has_stream,
        frame,
    } in floods()
    {
        let mut connection = served.frames();
        connection.greet();
        if has_stream {
            assert!(connection.request(1, "POST", "/_bytes", false));
        }
        let start = now();
        match told_to_calm_down(&mut connection, &frame) {
            Ok(sent) => println!("{name}: ended after {sent} frames, {:?}", start.elapsed()),
            Err(how) => faults.push(format!("{name}: {how}")),
        }
        drop(connection);
        served.serves();
        let most = served.proxy.process.memory_kib("VmHWM");
        if most > before + 64 * 1024 {
            faults.push(format!("{name}: {before} KiB -> {most} KiB"));
        }
        let said = lines() - lines_before;
        if said > 100 {
            faults.push(format!("{name}: {said} lines of log"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Sends `frame` until the connection ends. Returns the number sent, or how the connection ended if
/// not by GOAWAY ENHANCE_YOUR_CALM.
fn told_to_calm_down(connection: &mut Frames, frame: &[u8]) -> Result<usize, String> {
    let batch = frame.repeat(BATCH);
    let start = now();
    let (mut sent, mut told) = (0, None);
    let mut gone = false;
    connection.gives_up_after(Duration::from_secs(5));
    loop {
        if start.elapsed() > LONGEST {
            return Err(format!("it goes on after {sent} frames"));
        }
        if !gone {
            gone = !connection.send_raw(&batch);
            sent += BATCH;
        }
        let patience = if gone {
            LONGEST
        } else {
            Duration::from_millis(1)
        };
        loop {
            match connection.receive(patience) {
                Received::Frame(frame) => told = frame.goes_away_for().or(told),
                Received::Nothing => break,
                Received::End => {
                    return match told {
                        Some(ENHANCE_YOUR_CALM) => Ok(sent),
                        other => Err(format!("after {sent} frames it ended, told {other:?}")),
                    };
                }
            }
        }
    }
}
