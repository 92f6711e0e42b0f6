//! What the server does in one step each, in Lua, and the names of the keys that it is done to.
//!
//! Whatever lies under the keys, and of whatever type, a script does not fail for it: something of
//! another type, or too large, counts as a record that cannot be read, and is replaced.

use redis::Script;

use crate::store::key::Key;
use crate::store::record;

/// The keys of one client. The braces make them fall into one slot, so that a script may use all
/// of them also where slots are spread over servers.
#[derive(Debug)]
pub(super) struct Keys {
    /// The record, sealed.
    pub(super) record: String,
    /// Who asks for a token now.
    pub(super) lock: String,
    /// Who shares the client, by when each was first seen.
    pub(super) members: String,
    /// The same, by when each was last seen.
    pub(super) seen: String,
    /// The channel on which a change of the record is told.
    pub(super) channel: String,
}

impl Keys {
    /// The keys below `prefix` of the client that `key` stands for. They say which client it is by
    /// a digest over instance and client id, so that none of both can be read from them.
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
    /// KEYS record; gives what is kept, or nil, and its stamp.
    pub(super) read: Script,
    /// KEYS record, members, seen; ARGV who, ms until the silent are forgotten, channel. Gives the
    /// record's stamp, how many came before this one, and how many there are. If one of the first
    /// has come or gone, all are told to look.
    pub(super) look: Script,
    /// KEYS lock; ARGV owner, ms. Gives whether it was free.
    pub(super) lease: Script,
    /// KEYS lock, record; ARGV owner, the stamp of what is replaced, record, ms until it is of no
    /// more use, channel, or nothing if nobody is told. Gives `kept`, `lost` or `changed`, and the new
    /// stamp, which is also what is told.
    pub(super) publish: Script,
    /// KEYS lock; ARGV owner.
    pub(super) unlock: Script,
    /// KEYS members, seen; ARGV who, channel.
    pub(super) leave: Script,
}

impl Scripts {
    pub(super) fn new() -> Scripts {
        let with_stamp = |body: &str| Script::new(&format!("{}{body}", stamp()));
        Scripts {
            read: with_stamp(READ),
            look: with_stamp(&LOOK.replace("FIRST", FIRST)),
            lease: Script::new(LEASE),
            publish: with_stamp(PUBLISH),
            unlock: Script::new(UNLOCK),
            leave: Script::new(&LEAVE.replace("FIRST", FIRST)),
        }
    }
}

/// A stamp is another one for other content, and empty for none.
fn stamp() -> String {
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

/// So many may go on without the server, at most: who comes and goes behind them is nobody's concern.
const FIRST: &str = "4";

const READ: &str = "
local kept, stamp = fetch(KEYS[1])
return {kept, stamp}
";

const LOOK: &str = "
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

// a lock that would never end, or later than any, is none of this program's making
const LEASE: &str = "
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
local left = redis.call('PTTL', KEYS[1])
if left < 0 or left > tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
";

// who may not publish can still keep: the others look by themselves
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
