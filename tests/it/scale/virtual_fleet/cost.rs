//! The cost of each operation on a server like Redis, and totals.
//!
//! Processor time is measured for a poll, a read and a lease, and estimated from these for the two
//! others, which are rare. Measured with Redis 7.0 on one core of a small virtual machine: the
//! program's own scripts, 200 concurrent connections, a record of half a kilobyte, 10,000 members.
//! Bytes are measured for a poll, and estimated from the protocol for the others, with a token of
//! [`TOKEN`] characters.

use std::sync::LazyLock;
use std::time::Duration;

use collibra_auth_proxy::client_id::ClientId;
use collibra_auth_proxy::secret::Secret;
use collibra_auth_proxy::store::key::Key;
use collibra_auth_proxy::store::record;
use collibra_auth_proxy::token::ports::{Record, StoredPool, StoredToken};

/// The length of an access token in characters; Collibra does not document it.
const TOKEN: usize = 1_000;

/// The cost of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// The server's processor time.
    pub(super) processor: Duration,
    /// Bytes other than the record.
    bytes: u64,
    /// How often the record is transferred.
    records: u64,
}

const fn cost(microseconds: u64, bytes: u64, records: u64) -> Cost {
    Cost {
        processor: Duration::from_micros(microseconds),
        bytes,
        records,
    }
}

pub(super) const LOOK: Cost = cost(22, 350, 0);
pub(super) const READ: Cost = cost(12, 190, 1);
pub(super) const LEASE: Cost = cost(9, 175, 0);
pub(super) const PUBLISH: Cost = cost(30, 390, 1);
pub(super) const UNLOCK: Cost = cost(9, 165, 0);

/// The operations on the server, second by second.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    seconds: Vec<Load>,
}

/// The server's work in some time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// Operations.
    pub(crate) operations: u64,
    /// Bytes in both directions.
    pub(crate) bytes: u64,
    /// Processor time.
    pub(crate) processor: Duration,
}

impl Load {
    fn add(&mut self, cost: &Cost, times: u32) {
        self.operations += u64::from(times);
        self.bytes += u64::from(times) * (cost.bytes + cost.records * *RECORD);
        self.processor += cost.processor * times;
    }
}

impl Ledger {
    pub(super) fn book(&mut self, at: Duration, cost: &Cost) {
        let nth = usize::try_from(at.as_secs()).unwrap_or(usize::MAX);
        if self.seconds.len() <= nth {
            self.seconds.resize(nth + 1, Load::default());
        }
        self.seconds[nth].add(cost, 1);
    }

    /// The totals from second `from` to `to`, and of the second with the most operations; includes
    /// the poll that each of `proxies` makes every 11 s.
    pub(super) fn between(&self, from: usize, to: usize, proxies: usize) -> (Load, Load) {
        let looks = u32::try_from(proxies.div_ceil(11)).unwrap_or(u32::MAX);
        let mut sum = Load::default();
        let mut most = Load::default();
        for nth in from..to {
            let mut second = self.seconds.get(nth).copied().unwrap_or_default();
            second.add(&LOOK, looks);
            sum.operations += second.operations;
            sum.bytes += second.bytes;
            sum.processor += second.processor;
            if second.operations > most.operations {
                most = second;
            }
        }
        (sum, most)
    }
}

/// The size of a sealed record in bytes.
static RECORD: LazyLock<u64> = LazyLock::new(|| {
    let id = "urn:sys:env:2eeadf60-1a11-5170-7e57-000000000000:i:1cnxtsn";
    let now = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let record = Record {
        generation: 10_000,
        token: Some(StoredToken {
            generation: 10_000,
            access_token: Secret::from("t".repeat(TOKEN)),
            asked: now,
            lifetime: Duration::from_secs(299),
        }),
        pool: StoredPool {
            full_at: now,
            not_before: now,
        },
    };
    let id = ClientId::parse(id).unwrap();
    let key = Key::new(
        "https://acme.collibra.com",
        &id,
        &Secret::from("s".repeat(40)),
    );
    record::seal(&key, &record).unwrap().len() as u64
});
