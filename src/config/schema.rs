//! Every key of a configuration file in one table: where it may stand, what it takes, its default, and what it is for.

use super::service::KINDS;

/// One key of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Key {
    /// Its spelling in TOML; in the environment it is in capitals behind `PGDETOUR_`, `__` between the levels.
    pub name: &'static str,
    /// Where it may stand.
    pub level: Level,
    /// What it takes.
    pub kind: Kind,
    /// What holds when it is left out.
    pub default: &'static str,
    /// What it is for.
    pub says: &'static str,
}

/// Where a key may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// At the top of the file.
    Global,
    /// At the top, for all servers and services, and in `[alias.NAME]` of a server or `[service.NAME]`.
    GlobalAndPinged,
    /// At the top, for all servers, and in `[alias.NAME]` of a server.
    GlobalAndServer,
    /// At the top, for all aliases, and in `[alias.NAME]` of a server or a group.
    GlobalAndAlias,
    /// In `[outage_errors]`.
    OutageErrors,
    /// In `[alias.NAME]` of a server.
    Server,
    /// In `[alias.NAME]` of a group.
    Group,
    /// In `[alias.NAME]` of either.
    Alias,
    /// In `[service.NAME]`.
    Service,
    /// In `[alias.NAME]` of a server or `[service.NAME]`.
    ServerAndService,
}

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text like `"120s"`, `"1h"` or `"200ms"`.
    Duration,
    /// A whole number.
    Count,
    /// One of these words.
    Word(&'static [&'static str]),
    /// One of these words, or a duration.
    WordOrDuration(&'static [&'static str]),
    /// A text.
    Text,
    /// A list of aliases.
    Aliases,
    /// A list of places, each a host with its port.
    Places,
    /// A list of SQLSTATEs, each whole or by its class.
    Codes,
}

/// Every key.
pub const KEYS: &[Key] = &[
    key(
        "monitoring",
        Level::Global,
        Kind::Word(&["background", "on-demand"]),
        "background",
        "Who starts pings: a thread of the router's, or the application by `Router::monitor()`.",
    ),
    key(
        "pace",
        Level::Global,
        Kind::Word(&["brisk"]),
        "none",
        "A preset: 10 s between pings, 1 s during an outage, 200 ms after an error. Keys that are written win.",
    ),
    key(
        "cache_size",
        Level::Global,
        Kind::Count,
        "1000",
        "The last good values that `read_or` keeps at most, of all aliases together (feature `cache`); 0 for none.",
    ),
    key(
        "history",
        Level::Global,
        Kind::Text,
        "none",
        "The alias of the primary in which outages are kept for `pgdetour report` (feature `history`).",
    ),
    key("history_keep", Level::Global, Kind::Duration, "365d", "For how long an outage that is over is kept there."),
    key(
        "monitoring_ping_frequency",
        Level::GlobalAndPinged,
        Kind::Duration,
        "120s",
        "Between pings while a server is up.",
    ),
    key(
        "outage_ping_frequency",
        Level::GlobalAndPinged,
        Kind::Duration,
        "30s",
        "Between pings while it is down, or nobody takes writes.",
    ),
    key(
        "error_ping_frequency",
        Level::GlobalAndPinged,
        Kind::Duration,
        "5s",
        "At most this often do errors cause a ping.",
    ),
    key(
        "outage_log_frequency",
        Level::GlobalAndPinged,
        Kind::Duration,
        "1h",
        "How often an outage that lasts is logged again.",
    ),
    key(
        "ping_timeout",
        Level::GlobalAndPinged,
        Kind::Duration,
        "3s",
        "How long a ping may take while the server is up.",
    ),
    key(
        "outage_ping_timeout",
        Level::GlobalAndPinged,
        Kind::Duration,
        "1s",
        "How long a ping may take while it is down.",
    ),
    key("failure_threshold", Level::GlobalAndPinged, Kind::Count, "2", "Failed pings in a row that open an outage."),
    key("success_threshold", Level::GlobalAndPinged, Kind::Count, "2", "Good pings in a row that close it."),
    key(
        "slow_after",
        Level::GlobalAndServer,
        Kind::Duration,
        "1s",
        "A server with leases out of which none has come back for this long is pinged.",
    ),
    key(
        "breaker_failure_rate",
        Level::GlobalAndServer,
        Kind::Count,
        "50",
        "Requests turn from a server that fails this many of 100 calls; 0 for never.",
    ),
    key(
        "breaker_slow_rate",
        Level::GlobalAndServer,
        Kind::Count,
        "0",
        "Requests turn from a server that is slow in this many of 100 calls; 0 for never.",
    ),
    key("breaker_slow_after", Level::GlobalAndServer, Kind::Duration, "1s", "A call that takes as long is slow."),
    key("breaker_window", Level::GlobalAndServer, Kind::Duration, "10s", "Calls that are longer ago count no more."),
    key(
        "breaker_min_calls",
        Level::GlobalAndServer,
        Kind::Count,
        "20",
        "Fewer calls than this within the window tell nothing.",
    ),
    key("max_size", Level::GlobalAndAlias, Kind::Count, "16", "Connections to the alias's own server at most."),
    key(
        "detour_size",
        Level::GlobalAndAlias,
        Kind::Count,
        "half of max_size",
        "Connections on each failover target at most, in a pool of their own.",
    ),
    key(
        "min_idle",
        Level::GlobalAndAlias,
        Kind::Count,
        "1",
        "Connections that each detour pool keeps open; 0 for none.",
    ),
    key("acquire_timeout", Level::GlobalAndAlias, Kind::Duration, "5s", "How long one `get()` may take in all."),
    key(
        "connect_timeout",
        Level::GlobalAndAlias,
        Kind::Duration,
        "2s",
        "How long one connect may take in all: DNS, TCP, TLS and login.",
    ),
    key(
        "max_lifetime",
        Level::GlobalAndAlias,
        Kind::WordOrDuration(&["off"]),
        "30m",
        "A connection that is older is closed when it comes back; each lives up to a tenth longer or shorter.",
    ),
    key(
        "max_waiting",
        Level::GlobalAndAlias,
        Kind::Count,
        "1000",
        "Requests that may wait in line for a connection of one pool; 0: none waits for one that is lent.",
    ),
    key(
        "session_reset",
        Level::GlobalAndAlias,
        Kind::Word(&["none", "discard-all"]),
        "none",
        "Whether a session forgets its settings, listens, advisory locks and temporary tables before it is lent again.",
    ),
    key(
        "detour_latency_limit",
        Level::GlobalAndAlias,
        Kind::WordOrDuration(&["off"]),
        "off",
        "While a round trip to a failover target takes longer, the detour to it is halved step by step.",
    ),
    key(
        "call_timeout",
        Level::GlobalAndAlias,
        Kind::Duration,
        "30s",
        "How long one `read()`, `write()` or `write_once()` may take in all: connections, attempts and waits.",
    ),
    key(
        "retry_budget",
        Level::GlobalAndAlias,
        Kind::Count,
        "20",
        "Retries and hedges at most, in percent of all calls; 0 for none.",
    ),
    key(
        "hedge_after",
        Level::GlobalAndAlias,
        Kind::WordOrDuration(&["off", "p95"]),
        "off",
        "A read that has no answer after this long is asked of a second server too; p95: after what 95 of 100 take.",
    ),
    key(
        "pass_deadline",
        Level::GlobalAndAlias,
        Kind::Word(&["on", "off"]),
        "off",
        "Whether the server is told of the deadline of a call, as its `statement_timeout`.",
    ),
    key(
        "once_keep",
        Level::GlobalAndAlias,
        Kind::Duration,
        "24h",
        "For how long a key of `write_once()` and its answer are kept.",
    ),
    key("role", Level::Server, Kind::Word(&["primary", "replica"]), "required", "What the server is meant to be."),
    key(
        "url",
        Level::ServerAndService,
        Kind::Text,
        "required",
        "Where the server is, a libpq URL or `key=value` pairs; where the service is, a URL of its kind.",
    ),
    key("password_file", Level::ServerAndService, Kind::Text, "none", "A file that holds the password."),
    key("kind", Level::Service, Kind::Word(KINDS), "required", "What the service is."),
    key(
        "nodes",
        Level::Service,
        Kind::Places,
        "none",
        "The nodes of a memcached, in place of a url: all have to answer.",
    ),
    key("sslrootcert", Level::Service, Kind::Text, "the system's", "A PEM file with the authorities that are trusted."),
    key("status", Level::Service, Kind::Count, "200 to 299", "The status that an `http` service has to answer with."),
    key(
        "failover",
        Level::Alias,
        Kind::Aliases,
        "[the primary]",
        "The aliases that take the reads during an outage, in order; a primary's default is none.",
    ),
    key("members", Level::Group, Kind::Aliases, "required", "The servers among which a group spreads its reads."),
    key(
        "balance",
        Level::Group,
        Kind::Word(&["round-robin", "random", "least-loaded"]),
        "round-robin",
        "How it spreads them.",
    ),
    key(
        "extra",
        Level::OutageErrors,
        Kind::Codes,
        "[]",
        "SQLSTATEs that ask for a ping besides those that do by themselves: five characters, or two for a class.",
    ),
    key(
        "only",
        Level::OutageErrors,
        Kind::Codes,
        "as the table of faults says",
        "SQLSTATEs that ask for a ping instead of those that do by themselves.",
    ),
];

const fn key(name: &'static str, level: Level, kind: Kind, default: &'static str, says: &'static str) -> Key {
    Key { name, level, kind, default, says }
}

impl Key {
    /// The key of this name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Whether it may stand at the top of the file.
    #[must_use]
    pub fn is_global(&self) -> bool {
        matches!(self.level, Level::Global | Level::GlobalAndPinged | Level::GlobalAndServer | Level::GlobalAndAlias)
    }

    /// Whether it may stand in `[alias.NAME]`.
    #[must_use]
    pub fn is_of_alias(&self) -> bool {
        !matches!(self.level, Level::Global | Level::OutageErrors | Level::Service)
    }

    /// Whether it may stand in `[service.NAME]`.
    #[must_use]
    pub fn is_of_service(&self) -> bool {
        matches!(self.level, Level::GlobalAndPinged | Level::Service | Level::ServerAndService)
    }

    /// Whether it may stand in `[outage_errors]`.
    #[must_use]
    pub fn is_of_outage_errors(&self) -> bool {
        self.level == Level::OutageErrors
    }

    /// Whether it may stand in `[alias.NAME]` of a group.
    #[must_use]
    pub fn is_of_group(&self) -> bool {
        matches!(self.level, Level::GlobalAndAlias | Level::Group | Level::Alias)
    }
}
