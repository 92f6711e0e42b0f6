//! The Lua scripts, each executed atomically by the server, and the names of their keys.
//!
//! A script does not fail because of a key's content or type. A value of another type, or a value
//! that is too large, counts as an undecodable record and is replaced.

use redis::Script;

use crate::store::key::Key;
use crate::store::record;

/// The keys of one client. The braces put them into one cluster slot, so that a script may use all
/// of them.
#[derive(Debug)]
pub(super) struct Keys {
    /// The record, sealed.
    pub(super) record: String,
    /// The process that holds the lease.
    pub(super) lock: String,
    /// The fleet's members, ordered by when each joined.
    pub(super) members: String,
    /// The same, ordered by their last heartbeats.
    pub(super) seen: String,
    /// The channel that announces changes of the record.
    pub(super) channel: String,
}

impl Keys {
    /// Returns the keys below `prefix` of the client of `key`. They contain a digest of instance
    /// and client id, which reveals neither.
    pub(super) fn new(prefix: &str, key: &Key) -> Keys {
        let client = format!("{prefix}:{{{}}}", key.fingerprint());
        Keys {
            record: format!("{client}:record"),
            lock: format!("{client}:lock"),
            members: format!("{client}:members"),
            seen: format!("{client}:seen"),
            channel: format!("{client}:changed"),
        }
    }
}

/// The scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    /// KEYS record. Returns the record, or nil, and its version.
    pub(super) read: Script,
    /// KEYS record, members, seen; ARGV name, ms after which silent members are dropped, channel.
    /// Returns the record's version, how many members joined earlier, and how many there are. If
    /// one of the first joined or left, everyone is told to poll.
    pub(super) heartbeat: Script,
    /// KEYS lock; ARGV owner, ms. Returns whether the lock was free.
    pub(super) lease: Script,
    /// KEYS lock, record; ARGV owner, the version that is replaced, record, ms until it expires,
    /// channel, or empty to notify nobody. Returns `kept`, `lost` or `changed`, and the new
    /// version, which is also announced.
    pub(super) publish: Script,
    /// KEYS lock; ARGV owner.
    pub(super) unlock: Script,
    /// KEYS members, seen; ARGV name, channel.
    pub(super) leave: Script,
}

impl Scripts {
    pub(super) fn new() -> Scripts {
        let with_version = |body: &str| Script::new(&format!("{}{body}", fetch_function()));
        Scripts {
            read: with_version(READ),
            heartbeat: with_version(&HEARTBEAT.replace("FIRST", FIRST)),
            lease: Script::new(LEASE),
            publish: with_version(PUBLISH),
            unlock: Script::new(UNLOCK),
            leave: Script::new(&LEAVE.replace("FIRST", FIRST)),
        }
    }
}

/// The Lua function that reads a record and its version: it differs for different content and is
/// empty for none.
fn fetch_function() -> String {
    format!(
        "
local function fetch(key)
    local size = redis.pcall('STRLEN', key)
    if type(size) == 'table' then return '?', 'of another type' end
    if size > {largest} then return '?', 'too large: ' .. size end
    local kept = redis.call('GET', key)
    if not kept then return false, '' end
    return kept, redis.sha1hex(kept)
end
",
        largest = record::LARGEST
    )
}

/// How many members may continue without the server. Changes among later ones concern nobody.
const FIRST: &str = "4";

const READ: &str = "
local kept, stamp = fetch(KEYS[1])
return {kept, stamp}
";

const HEARTBEAT: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function add(key, ...)
    if type(redis.pcall('ZADD', key, ...)) == 'table' then
        redis.call('DEL', key)
        redis.call('ZADD', key, ...)
    end
    redis.call('PEXPIRE', key, ARGV[2])
end
local function rank_of(who) return redis.call('ZRANK', KEYS[2], who) end
local known = redis.pcall('ZSCORE', KEYS[2], ARGV[1])
add(KEYS[2], 'NX', now, ARGV[1])
add(KEYS[3], now, ARGV[1])
local changed = type(known) ~= 'string' and rank_of(ARGV[1]) < FIRST
local gone = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now - ARGV[2], 'LIMIT', 0, 100)
if #gone > 0 then
    for _, who in ipairs(gone) do
        local rank = rank_of(who)
        if rank and rank < FIRST then changed = true end
    end
    redis.call('ZREM', KEYS[2], unpack(gone))
    redis.call('ZREM', KEYS[3], unpack(gone))
end
if changed then redis.pcall('PUBLISH', ARGV[3], '') end
local kept, stamp = fetch(KEYS[1])
return {stamp, rank_of(ARGV[1]), redis.call('ZCARD', KEYS[2])}
";

// a lock that never expires, or later than any lease, is not this program's
const LEASE: &str = "
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
local left = redis.call('PTTL', KEYS[1])
if left < 0 or left > tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
";

// a user who may not publish can still store: the others find changes by polling
const PUBLISH: &str = "
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return {'lost', ''} end
local _, before = fetch(KEYS[2])
if before ~= ARGV[2] then return {'changed', ''} end
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
local stamp = redis.sha1hex(ARGV[3])
if ARGV[5] ~= '' then redis.pcall('PUBLISH', ARGV[5], stamp) end
return {'kept', stamp}
";

const LEAVE: &str = "
local rank = redis.pcall('ZRANK', KEYS[1], ARGV[1])
redis.pcall('ZREM', KEYS[1], ARGV[1])
redis.pcall('ZREM', KEYS[2], ARGV[1])
if type(rank) == 'number' and rank < FIRST then redis.pcall('PUBLISH', ARGV[2], '') end
return 1
";

const UNLOCK: &str = "
if redis.pcall('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
";
