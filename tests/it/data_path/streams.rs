//! Uploads in small DATA frames, as a client sends that flushes after each row, are not a flood.

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::h2_caller::{Served, runtime, send};

/// Concurrent uploads on the same connection.
const NEIGHBOURS: usize = 20;

/// JSON rows of some 60 bytes each.
fn rows(count: usize) -> Vec<Bytes> {
    let row = |nth| {
        let row = format!(r#"{{"id":{nth:08},"name":"an asset of the catalogue","rank":1}}"#);
        Bytes::from(row + "\n")
    };
    (0..count).map(row).collect()
}

/// Uploads `count` rows, one DATA frame each, beside the neighbours.
fn upload(served: &Served, count: usize) {
    runtime().block_on(async {
        let requests = served.connect().await;
        let mut uploads = JoinSet::new();
        for nth in 0..=NEIGHBOURS {
            let mut requests = requests.clone().ready().await.unwrap();
            let pieces = if nth == 0 { rows(count) } else { rows(3) };
            let length: usize = pieces.iter().map(Bytes::len).sum();
            let request = Request::post(served.uri("/_bytes")).body(()).unwrap();
            uploads.spawn(async move {
                let heard = send(&mut requests, request, pieces, None).await;
                assert_eq!(heard.head.status, StatusCode::OK, "{nth}");
                let told: Value = serde_json::from_slice(&heard.body).unwrap();
                assert_eq!(told["received"], length, "{nth}");
            });
        }
        while let Some(done) = uploads.join_next().await {
            done.unwrap();
        }
    });
}

#[test]
fn two_hundred_rows_in_small_frames_are_served() {
    let served = Served::with("");
    for _ in 0..10 {
        upload(&served, 200);
    }
    let sent = u64::try_from(10 * (NEIGHBOURS + 1)).unwrap();
    assert_eq!(served.simulator.count("requests"), sent);
}

#[test]
fn twenty_thousand_rows_in_small_frames_are_served() {
    let served = Served::with("");
    upload(&served, 20_000);
}
