//! From written durations, counts and words to settings: what is not written gives way to what is.

use std::time::Duration;

use super::{
    BreakerSettings, CallSettings, Hedge, Pings, PoolSettings, SessionReset,
    error::{At, Given, Mistake, Problem},
    raw::Numbers,
};

/// More than any of these can mean, and little enough to be added to an instant.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
/// PostgreSQL's own limit of `max_connections`.
const MOST_CONNECTIONS: usize = 262_143;

/// Pairs of which the first may not be longer than the second.
const ORDERED: [(&str, &str); 5] = [
    ("outage_ping_frequency", "monitoring_ping_frequency"),
    ("error_ping_frequency", "outage_ping_frequency"),
    ("ping_timeout", "monitoring_ping_frequency"),
    ("outage_ping_timeout", "ping_timeout"),
    ("outage_ping_timeout", "outage_ping_frequency"),
];

/// An alias's numbers over the global ones.
pub(super) struct Layered<'a> {
    alias: &'a Numbers,
    global: &'a Numbers,
}

impl<'a> Layered<'a> {
    pub(super) fn new(alias: &'a Numbers, global: &'a Numbers) -> Self {
        Self { alias, global }
    }

    /// How the server is pinged.
    pub(super) fn pings(&self, defaults: &Pings) -> Pings {
        let monitoring = self.duration("monitoring_ping_frequency", defaults.monitoring_ping_frequency);
        let outage = self.duration("outage_ping_frequency", defaults.outage_ping_frequency.min(monitoring));
        let ping_timeout = self.duration("ping_timeout", defaults.ping_timeout.min(monitoring));
        Pings {
            monitoring_ping_frequency: monitoring,
            outage_ping_frequency: outage,
            error_ping_frequency: self.duration("error_ping_frequency", defaults.error_ping_frequency.min(outage)),
            outage_log_frequency: self.duration("outage_log_frequency", defaults.outage_log_frequency),
            ping_timeout,
            outage_ping_timeout: self
                .duration("outage_ping_timeout", defaults.outage_ping_timeout.min(ping_timeout).min(outage)),
            failure_threshold: self.threshold("failure_threshold", defaults.failure_threshold),
            success_threshold: self.threshold("success_threshold", defaults.success_threshold),
            slow_after: self.duration("slow_after", defaults.slow_after),
        }
    }

    /// How the connections are pooled; `url_timeout` is the URL's `connect_timeout`, which the key overrides.
    pub(super) fn pool(&self, url_timeout: Option<Duration>) -> PoolSettings {
        let defaults = PoolSettings::default();
        let max_size = self.count("max_size", defaults.max_size);
        let detour_size = self.count("detour_size", PoolSettings::of_size(max_size).detour_size);
        let connect_timeout = match (self.alias.durations.get("connect_timeout"), url_timeout) {
            (Some(given), _) => given.value,
            (None, Some(timeout)) => timeout,
            (None, None) => self.duration("connect_timeout", defaults.connect_timeout),
        };
        PoolSettings {
            max_size,
            detour_size,
            min_idle: self.count("min_idle", defaults.min_idle.min(detour_size)),
            acquire_timeout: self.duration("acquire_timeout", defaults.acquire_timeout),
            connect_timeout,
            max_lifetime: self.duration_or_off("max_lifetime", defaults.max_lifetime),
            max_waiting: self.count("max_waiting", defaults.max_waiting),
            session_reset: match self.word("session_reset") {
                Some("discard-all") => SessionReset::DiscardAll,
                _ => defaults.session_reset,
            },
            detour_latency_limit: self.duration_or_off("detour_latency_limit", defaults.detour_latency_limit),
        }
    }

    /// How the alias's calls are bounded and made again.
    pub(super) fn calls(&self) -> CallSettings {
        let defaults = CallSettings::default();
        CallSettings {
            call_timeout: self.duration("call_timeout", defaults.call_timeout),
            retry_budget: self.threshold("retry_budget", defaults.retry_budget),
            hedge_after: self.hedge_after().unwrap_or(defaults.hedge_after),
            pass_deadline: self.word("pass_deadline").map_or(defaults.pass_deadline, |word| word == "on"),
            once_keep: self.duration("once_keep", defaults.once_keep),
        }
    }

    /// Keys that would be forgotten while the call that stores them may still ask for them.
    pub(super) fn inverted_calls(&self, calls: &CallSettings, alias: &At) -> Option<Mistake> {
        let least = calls.call_timeout.saturating_mul(2);
        if calls.once_keep >= least || calls.once_keep.is_zero() {
            return None;
        }
        let written = |key: &str| self.alias.durations.get(key).or_else(|| self.global.durations.get(key));
        let at = written("once_keep").or_else(|| written("call_timeout")).map_or(alias, |given| &given.at);
        let [keep, least] = [calls.once_keep, least].map(humantime::format_duration);
        Some(at.mistake(Problem::new(
            format!("once_keep ({keep}) is shorter than twice call_timeout ({least})"),
            format!("write a once_keep of {least} or more, or a shorter call_timeout"),
        )))
    }

    /// When requests turn from the server.
    pub(super) fn breaker(&self) -> BreakerSettings {
        let defaults = BreakerSettings::default();
        BreakerSettings {
            breaker_failure_rate: self.threshold("breaker_failure_rate", defaults.breaker_failure_rate),
            breaker_slow_rate: self.threshold("breaker_slow_rate", defaults.breaker_slow_rate),
            breaker_slow_after: self.duration("breaker_slow_after", defaults.breaker_slow_after),
            breaker_window: self.duration("breaker_window", defaults.breaker_window),
            breaker_min_calls: self.threshold("breaker_min_calls", defaults.breaker_min_calls),
        }
    }

    /// Of a word and a duration, the one that stands nearer to the alias.
    fn hedge_after(&self) -> Option<Hedge> {
        let written = |numbers: &Numbers| {
            let word = numbers.words.get("hedge_after").map(|given| given.value);
            let word = word.map(|word| if word == "p95" { Hedge::P95 } else { Hedge::Off });
            word.or_else(|| numbers.durations.get("hedge_after").map(|given| Hedge::After(given.value)))
        };
        written(self.alias).or_else(|| written(self.global))
    }

    /// Pings that no server could be asked with: inverted frequencies and timeouts.
    pub(super) fn inverted_pings(&self, pings: &Pings, at: &At) -> Vec<Mistake> {
        let value = |key: &str| match key {
            "monitoring_ping_frequency" => pings.monitoring_ping_frequency,
            "outage_ping_frequency" => pings.outage_ping_frequency,
            "error_ping_frequency" => pings.error_ping_frequency,
            "ping_timeout" => pings.ping_timeout,
            _ => pings.outage_ping_timeout,
        };
        let inverted = ORDERED.iter().filter(|(short, long)| value(short) > value(long) && !value(long).is_zero());
        inverted.map(|(short, long)| self.inverted(short, (long, value(long)), at)).collect()
    }

    /// More idle connections than a detour may hold.
    pub(super) fn inverted_pool(&self, pool: &PoolSettings) -> Option<Mistake> {
        let given = self.alias.counts.get("min_idle").or_else(|| self.global.counts.get("min_idle"))?;
        (pool.min_idle > pool.detour_size).then(|| {
            let limit = pool.detour_size;
            given.at.mistake(Problem::new(
                format!("{} is more than detour_size ({limit})", given.value),
                format!("write at most {limit}, or a larger detour_size"),
            ))
        })
    }

    fn inverted(&self, short: &str, (long, limit): (&str, Duration), alias: &At) -> Mistake {
        let limit = humantime::format_duration(limit);
        let written = |key: &str| self.alias.durations.get(key).or_else(|| self.global.durations.get(key));
        // A mistake is told once, not once per alias: at the key that was written, the shorter one first.
        if let Some(Given { value, at }) = written(short) {
            let value = humantime::format_duration(*value);
            let from = if written(long).is_some() { "" } else { ", the default" };
            return at.mistake(Problem::new(
                format!("{value} is longer than {long} ({limit}{from})"),
                format!("write at most {limit}, or a longer {long}"),
            ));
        }
        let at = written(long).map_or(alias, |given| &given.at);
        at.mistake(Problem::new(format!("{limit} is shorter than {short}"), format!("write a shorter {short} as well")))
    }

    fn duration(&self, key: &str, default: Duration) -> Duration {
        self.alias.durations.get(key).or_else(|| self.global.durations.get(key)).map_or(default, |given| given.value)
    }

    fn count(&self, key: &str, default: usize) -> usize {
        self.alias.counts.get(key).or_else(|| self.global.counts.get(key)).map_or(default, |given| given.value)
    }

    /// Of "off" and a duration, the one that stands nearer to the alias; a duration of zero is "off" too.
    fn duration_or_off(&self, key: &str, default: Option<Duration>) -> Option<Duration> {
        let written = |numbers: &Numbers| {
            let off = numbers.words.get(key).map(|_| Duration::ZERO);
            off.or_else(|| numbers.durations.get(key).map(|given| given.value))
        };
        let given = written(self.alias).or_else(|| written(self.global));
        given.map_or(default, |duration| Some(duration).filter(|duration| !duration.is_zero()))
    }

    fn word(&self, key: &str) -> Option<&'static str> {
        self.alias.words.get(key).or_else(|| self.global.words.get(key)).map(|given| given.value)
    }

    fn threshold(&self, key: &str, default: u32) -> u32 {
        u32::try_from(self.count(key, default as usize)).unwrap_or(u32::MAX)
    }
}

impl Numbers {
    /// Values that can mean nothing: zero, or beyond all limits.
    pub(super) fn senseless(&self) -> Vec<Mistake> {
        let durations = self.durations.iter().filter_map(|(key, given)| {
            let problem = match given.value {
                Duration::ZERO if matches!(*key, "max_lifetime" | "detour_latency_limit") => return None,
                Duration::ZERO => Problem::new("should not be zero", "write a duration like \"5s\" or \"200ms\""),
                value if value > LONGEST => Problem::bare("longer than a year"),
                _ => return None,
            };
            Some(given.at.mistake(problem))
        });
        let counts = self.counts.iter().filter_map(|(key, given)| {
            let problem = match (given.value, *key) {
                (0, "max_waiting") => return None,
                (0, "min_idle" | "retry_budget" | "breaker_failure_rate" | "breaker_slow_rate" | "cache_size") => {
                    return None;
                }
                (value, "retry_budget" | "breaker_failure_rate" | "breaker_slow_rate") if value > 100 => {
                    Problem::new("more than 100", "write a share in percent")
                }
                (0, _) => Problem::new("should not be zero", "write 1 or more"),
                (value, _) if value > MOST_CONNECTIONS => Problem::bare(format!("more than {MOST_CONNECTIONS}")),
                _ => return None,
            };
            Some(given.at.mistake(problem))
        });
        durations.chain(counts).collect()
    }

    /// The key that stands for all aliases together.
    pub(super) fn cache_size(&self) -> usize {
        self.counts.get("cache_size").map_or(super::settings::CACHE_SIZE, |given| given.value)
    }

    /// From code.
    pub(super) fn set_cache_size(&mut self, size: usize) {
        self.set_counts(&[("cache_size", size)], "");
    }

    /// From code: a field that has its default counts as not written, so that it gives way to the others.
    pub(super) fn set_pings(&mut self, pings: &Pings, place: &str) {
        let written = |pings: &Pings| {
            [
                ("monitoring_ping_frequency", pings.monitoring_ping_frequency),
                ("outage_ping_frequency", pings.outage_ping_frequency),
                ("error_ping_frequency", pings.error_ping_frequency),
                ("outage_log_frequency", pings.outage_log_frequency),
                ("ping_timeout", pings.ping_timeout),
                ("outage_ping_timeout", pings.outage_ping_timeout),
                ("slow_after", pings.slow_after),
            ]
        };
        for (own, default) in written(pings).into_iter().zip(written(&Pings::default())) {
            if own == default {
                self.durations.remove(own.0);
            } else {
                self.set_durations(&[own], place);
            }
        }
        let counts = [("failure_threshold", pings.failure_threshold), ("success_threshold", pings.success_threshold)];
        self.set_counts(&counts.map(|(key, value)| (key, value as usize)), place);
    }

    /// Every key written, from code.
    pub(super) fn set_pool(&mut self, pool: &PoolSettings, place: &str) {
        self.set_durations(
            &[("acquire_timeout", pool.acquire_timeout), ("connect_timeout", pool.connect_timeout)],
            place,
        );
        let counts = [("max_size", pool.max_size), ("detour_size", pool.detour_size), ("min_idle", pool.min_idle)];
        self.set_counts(&counts, place);
        self.set_counts(&[("max_waiting", pool.max_waiting)], place);
        let reset = match pool.session_reset {
            SessionReset::None => "none",
            SessionReset::DiscardAll => "discard-all",
        };
        self.set_word("session_reset", reset, place);
        self.set_duration_or_off("max_lifetime", pool.max_lifetime, place);
        self.set_duration_or_off("detour_latency_limit", pool.detour_latency_limit, place);
    }

    /// Every key written, from code.
    pub(super) fn set_calls(&mut self, calls: &CallSettings, place: &str) {
        self.set_durations(&[("call_timeout", calls.call_timeout), ("once_keep", calls.once_keep)], place);
        self.set_counts(&[("retry_budget", calls.retry_budget as usize)], place);
        self.set_word("pass_deadline", if calls.pass_deadline { "on" } else { "off" }, place);
        self.durations.remove("hedge_after");
        self.words.remove("hedge_after");
        match calls.hedge_after {
            Hedge::Off => self.set_word("hedge_after", "off", place),
            Hedge::P95 => self.set_word("hedge_after", "p95", place),
            Hedge::After(after) => self.set_durations(&[("hedge_after", after)], place),
        }
    }

    /// Every key written, from code.
    pub(super) fn set_breaker(&mut self, breaker: &BreakerSettings, place: &str) {
        let durations =
            [("breaker_slow_after", breaker.breaker_slow_after), ("breaker_window", breaker.breaker_window)];
        self.set_durations(&durations, place);
        let counts = [
            ("breaker_failure_rate", breaker.breaker_failure_rate),
            ("breaker_slow_rate", breaker.breaker_slow_rate),
            ("breaker_min_calls", breaker.breaker_min_calls),
        ];
        self.set_counts(&counts.map(|(key, value)| (key, value as usize)), place);
    }

    fn set_duration_or_off(&mut self, key: &'static str, value: Option<Duration>, place: &str) {
        self.durations.remove(key);
        self.words.remove(key);
        match value {
            Some(value) => self.set_durations(&[(key, value)], place),
            None => self.set_word(key, "off", place),
        }
    }

    fn set_word(&mut self, key: &'static str, value: &'static str, place: &str) {
        self.words.insert(key, Given { value, at: At::code(format!("{place}{key}")) });
    }

    fn set_durations(&mut self, durations: &[(&'static str, Duration)], place: &str) {
        for (key, value) in durations {
            self.durations.insert(key, Given { value: *value, at: At::code(format!("{place}{key}")) });
        }
    }

    fn set_counts(&mut self, counts: &[(&'static str, usize)], place: &str) {
        for (key, value) in counts {
            self.counts.insert(key, Given { value: *value, at: At::code(format!("{place}{key}")) });
        }
    }
}
