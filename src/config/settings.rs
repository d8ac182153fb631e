//! The numbers of one server or alias: how it is pinged, how its pool is sized, how its calls are bounded; with their defaults.

use std::time::Duration;

/// Last good values that are kept, of all aliases together.
pub(super) const CACHE_SIZE: usize = 1000;

/// How one server is pinged and when it counts as down. All frequencies are intervals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pings {
    /// Between pings while the server is up. Default 120 s.
    pub monitoring_ping_frequency: Duration,
    /// Between pings while the server is down, or up while none of its cluster takes the writes it should. Default 30 s.
    pub outage_ping_frequency: Duration,
    /// At most this often do errors cause a ping. Default 5 s.
    pub error_ping_frequency: Duration,
    /// How often an outage that lasts is logged again. Default 1 h.
    pub outage_log_frequency: Duration,
    /// How long a ping may take while the server is believed up. Default 3 s.
    pub ping_timeout: Duration,
    /// How long a ping may take while the server is down. Default 1 s.
    pub outage_ping_timeout: Duration,
    /// Failed pings in a row that open an outage. Default 2.
    pub failure_threshold: u32,
    /// Good pings in a row that close it. Default 2.
    pub success_threshold: u32,
    /// A server with leases out of which none has come back for this long is pinged. Default 1 s.
    pub slow_after: Duration,
}

impl Default for Pings {
    fn default() -> Self {
        Self {
            monitoring_ping_frequency: Duration::from_secs(120),
            outage_ping_frequency: Duration::from_secs(30),
            error_ping_frequency: Duration::from_secs(5),
            outage_log_frequency: Duration::from_secs(3600),
            ping_timeout: Duration::from_secs(3),
            outage_ping_timeout: Duration::from_secs(1),
            failure_threshold: 2,
            success_threshold: 2,
            slow_after: Duration::from_secs(1),
        }
    }
}

impl Pings {
    /// The preset `pace = "brisk"`: 10 s while up, 1 s during an outage, 200 ms after an error.
    #[must_use]
    pub fn brisk() -> Self {
        Self {
            monitoring_ping_frequency: Duration::from_secs(10),
            outage_ping_frequency: Duration::from_secs(1),
            error_ping_frequency: Duration::from_millis(200),
            ..Self::default()
        }
    }
}

/// How the connections to one server are pooled. In code, start from [`PoolSettings::of_size`]: it sizes the detour along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// Connections to the alias's own server at most. Default 16.
    pub max_size: usize,
    /// Connections on each failover target at most, in a pool of their own. In a file, the default is half of `max_size`, at least 1.
    pub detour_size: usize,
    /// Connections that each detour pool keeps open, so that a detour does not start with a connect. Default 1.
    pub min_idle: usize,
    /// How long one `get()` may take in all. Default 5 s.
    pub acquire_timeout: Duration,
    /// How long one connect may take in all: DNS, TCP, TLS and login. Default 2 s.
    pub connect_timeout: Duration,
    /// How old a connection may be to be lent again, a tenth more or less. `None`: as old as it gets. Default 30 min.
    pub max_lifetime: Option<Duration>,
    /// How many requests may wait in line for a connection of one pool, beyond those for which one can be made. Past that a
    /// request fails at once as overloaded. Default 1000.
    pub max_waiting: usize,
    /// What a session forgets before it is lent again. Default nothing.
    pub session_reset: SessionReset,
    /// How long a round trip to a failover target may take before the detour to it is narrowed. Default `None`: it never is.
    pub detour_latency_limit: Option<Duration>,
}

/// What a session forgets before it is lent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SessionReset {
    /// Nothing: `SET`, `LISTEN`, advisory locks and temporary tables stay.
    #[default]
    None,
    /// All that `DISCARD ALL` discards, but for prepared statements, which the driver goes on using.
    DiscardAll,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            max_size: 16,
            detour_size: 8,
            min_idle: 1,
            acquire_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            max_lifetime: Some(Duration::from_secs(30 * 60)),
            max_waiting: 1000,
            session_reset: SessionReset::None,
            detour_latency_limit: None,
        }
    }
}

impl PoolSettings {
    /// At most `max_size` connections to the alias's own server, and half as many, at least 1, on each failover target: what
    /// a file that says only `max_size` gives. The rest has its defaults.
    ///
    /// ```
    /// use std::time::Duration;
    /// use pgdetour::config::PoolSettings;
    ///
    /// let pool = PoolSettings { acquire_timeout: Duration::from_secs(1), ..PoolSettings::of_size(40) };
    /// assert_eq!((pool.max_size, pool.detour_size), (40, 20));
    /// ```
    #[must_use]
    pub fn of_size(max_size: usize) -> Self {
        Self { max_size, detour_size: (max_size / 2).max(1), ..Self::default() }
    }
}

/// How long the calls of one alias may take, `Alias::read` and its kin, and how often they are made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSettings {
    /// How long one call may take in all: connections, attempts and waits. Default 30 s.
    pub call_timeout: Duration,
    /// Retries and hedges at most, in percent of all calls. Default 20.
    pub retry_budget: u32,
    /// After how long a read is asked of a second server too. Default off.
    pub hedge_after: Hedge,
    /// Whether the server is told of the deadline: what is left of it is the `statement_timeout` of a read's session or of a write's
    /// transaction meanwhile, instead of their own. What it ends of a write (57014) is rolled back; a `COMMIT` is not ended by it.
    /// Default off.
    pub pass_deadline: bool,
    /// For how long a key of `Alias::write_once` and its answer are kept. Default 24 h.
    pub once_keep: Duration,
}

/// When requests turn from a server that answers its pings and serves its calls badly. They still go there where nobody else serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerSettings {
    /// It opens when this many of 100 calls failed. 0: never. Default 50.
    pub breaker_failure_rate: u32,
    /// It opens when this many of 100 calls were slow. 0: never. Default 0, since only the application knows what is slow.
    pub breaker_slow_rate: u32,
    /// A call that takes as long is slow, and so is a read that another server has answered which was asked later: `hedge_after`.
    /// Default 1 s.
    pub breaker_slow_after: Duration,
    /// Calls that are longer ago count no more. Default 10 s.
    pub breaker_window: Duration,
    /// Fewer calls than this within the window tell nothing. Default 20.
    pub breaker_min_calls: u32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            breaker_failure_rate: 50,
            breaker_slow_rate: 0,
            breaker_slow_after: Duration::from_secs(1),
            breaker_window: Duration::from_secs(10),
            breaker_min_calls: 20,
        }
    }
}

/// After how long a read is asked of a second server too; the first answer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hedge {
    /// Never.
    #[default]
    Off,
    /// After what 95 of 100 of the alias's reads take; never while too few are known.
    P95,
    /// After this long.
    After(Duration),
}

impl Default for CallSettings {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_secs(30),
            retry_budget: 20,
            hedge_after: Hedge::Off,
            pass_deadline: false,
            once_keep: Duration::from_secs(24 * 3600),
        }
    }
}
