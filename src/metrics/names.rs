//! What are they called? Each metric with its labels, once: the code, the documentation and the dashboards say the same.

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number as it is now.
    Gauge,
    /// A number that only grows.
    Counter,
    /// Durations, in seconds.
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The labels of its series.
    pub labels: &'static [&'static str],
    /// What it says.
    pub about: &'static str,
}

/// Upper bounds for the histograms, in seconds: from a connection that comes back soon to an outage of a day.
pub const SECONDS: [f64; 20] = [
    0.000_25, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
    7200.0, 86_400.0,
];

const fn gauge(name: &'static str, labels: &'static [&'static str], about: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, about }
}

const fn counter(name: &'static str, labels: &'static [&'static str], about: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, about }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], about: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, labels, about }
}

macro_rules! metrics {
    ($($constant:ident = $metric:expr;)*) => {
        $(pub(super) const $constant: Metric = $metric;)*
        /// Every metric there is.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    INFO = gauge("pgdetour_info", &["version"], "1, with the version of the crate");
    MODE = gauge("pgdetour_mode", &["mode"], "1 for the mode the router is in: normal, degraded, read-only or down");
    ALIAS_SERVED = gauge("pgdetour_alias_served", &["alias"], "1 if a request for the alias has somewhere to go");
    ALIAS_DETOUR = gauge("pgdetour_alias_detour", &["alias"], "1 if another server than its own takes its requests");
    ALIAS_WAITING = gauge("pgdetour_alias_waiting", &["alias"], "Requests that wait for a connection");
    RETRIES_LEFT = gauge("pgdetour_retries_left", &["alias"], "Retries left in the alias's budget");
    SERVER_STATE = gauge("pgdetour_server_state", &["server", "state"], "1 for the state a server is in: up, suspect, down or recovering");
    SERVICE_STATE = gauge("pgdetour_service_state", &["service", "state"], "1 for the state a service is in: up, suspect, down or recovering");
    SERVER_STANDING = gauge("pgdetour_server_standing", &["server", "standing"], "1 for what it may be trusted with: sound, not-primary, split-brain or foreign");
    SERVER_ADMITS = gauge("pgdetour_server_admits", &["server"], "1 if it takes new connections");
    BREAKER_OPEN = gauge("pgdetour_breaker_open", &["server"], "1 while its breaker is open: it goes behind the others");
    DRAINED = gauge("pgdetour_drained", &["server"], "1 while somebody has had it drained");
    OUTAGE_SECONDS = gauge("pgdetour_outage_seconds", &["server"], "For how long it has been out; 0: it is not");
    LAG_BYTES = gauge("pgdetour_lag_bytes", &["server"], "Bytes of the log that it has yet to replay; none of a primary");
    POOL_MAX = gauge("pgdetour_pool_max", &["alias", "server"], "Connections at most of the pool that an alias has on a server; of a detour: detour_size");
    POOL_SIZE = gauge("pgdetour_pool_size", &["alias", "server"], "Connections that are open");
    POOL_IDLE = gauge("pgdetour_pool_idle", &["alias", "server"], "Connections that wait to be lent");
    POOL_LENT = gauge("pgdetour_pool_lent", &["alias", "server"], "Connections that are lent");
    POOL_WAITING = gauge("pgdetour_pool_waiting", &["alias", "server"], "Requests that wait for one");
    DETOUR_USABLE = gauge("pgdetour_detour_usable", &["alias", "server"], "Connections of a detour that may be used now: fewer while its server is slow");
    ROUTES = counter("pgdetour_routes_total", &["alias", "server", "reason"], "Requests that got a connection, by where and why: own, or on a detour since the own server was down, recovering, drained, behind (its breaker was open), or refused one");
    REFUSED = counter("pgdetour_refused_total", &["alias", "reason"], "Requests that got none: overloaded, unavailable or late");
    CALLS = counter("pgdetour_calls_total", &["alias", "call", "outcome"], "Calls of read and write that have ended: answered, not-sent, rolled-back or unknown");
    ATTEMPTS = counter("pgdetour_attempts_total", &["alias", "server", "call", "outcome"], "Attempts of those calls, by the server that had them");
    LOST = counter("pgdetour_leases_lost_total", &["server"], "Connections that were lost while they were lent");
    OUTAGES = counter("pgdetour_outages_total", &["server"], "Outages that have opened, of servers and services");
    EVENTS = counter("pgdetour_events_total", &["event"], "Events, by the stable name that the log has too");
    ACQUIRE = histogram("pgdetour_acquire_seconds", &["alias"], "How long requests took to get a connection, of those that could not be served at once");
    PING = histogram("pgdetour_ping_seconds", &["server"], "How long good pings took");
    DETECT = histogram("pgdetour_time_to_detect_seconds", &["server"], "From the first sign of an outage to its opening");
    RECOVER = histogram("pgdetour_time_to_recover_seconds", &["server"], "From the opening of an outage to its end");
}

/// Tells the recorder what each of them is.
pub(super) fn describe() {
    for Metric { name, kind, about, .. } in ALL {
        match kind {
            Kind::Gauge if name.ends_with("_bytes") => describe_gauge!(*name, Unit::Bytes, *about),
            Kind::Gauge => describe_gauge!(*name, *about),
            Kind::Counter => describe_counter!(*name, *about),
            Kind::Histogram => describe_histogram!(*name, Unit::Seconds, *about),
        }
    }
}
