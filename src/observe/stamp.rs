//! When did it happen, as people and other machines read it? Wall-clock time decides nothing here: it is only told.

use std::{
    fmt,
    time::{Duration, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A moment by the wall clock, to the millisecond: in JSON and in text RFC 3339 in UTC, `2026-01-31T12:00:00.000Z`. The default is the
/// first moment of 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    unix_ms: u64,
}

/// 9999-12-31T23:59:59.999Z: RFC 3339 writes none that is later.
const LATEST: u64 = 253_402_300_799_999;

impl Stamp {
    /// So many milliseconds after 1970 began in UTC. A moment that RFC 3339 cannot write becomes the last that it can.
    #[must_use]
    pub fn from_unix_ms(unix_ms: u64) -> Self {
        Self { unix_ms: unix_ms.min(LATEST) }
    }

    /// The present moment.
    pub(crate) fn now() -> Self {
        crate::clock::wall().into()
    }

    /// So many milliseconds after 1970 began in UTC.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        self.unix_ms
    }

    /// How much later this one is; none if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.unix_ms.saturating_sub(earlier.unix_ms))
    }

    /// So much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self::from_unix_ms(self.unix_ms.saturating_add(ms(duration)))
    }

    /// So much earlier.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self { unix_ms: self.unix_ms.saturating_sub(ms(duration)) }
    }
}

/// The whole milliseconds of a duration.
pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<std::time::SystemTime> for Stamp {
    /// One before 1970 becomes the first moment of that year.
    fn from(at: std::time::SystemTime) -> Self {
        Self::from_unix_ms(ms(at.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }
}

impl From<Stamp> for std::time::SystemTime {
    fn from(stamp: Stamp) -> Self {
        UNIX_EPOCH + Duration::from_millis(stamp.unix_ms)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis((*self).into()).fmt(f)
    }
}

impl std::str::FromStr for Stamp {
    type Err = humantime::TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_rfc3339(text).map(Self::from)
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_utc_to_the_millisecond_and_read_back() {
        let at = Stamp::from(UNIX_EPOCH + Duration::from_micros(1_769_860_800_123_999));
        assert_eq!(at.to_string(), "2026-01-31T12:00:00.123Z");
        assert_eq!(at.to_string().parse::<Stamp>().unwrap(), at);
        let json = serde_json::to_string(&at).unwrap();
        assert_eq!(json, "\"2026-01-31T12:00:00.123Z\"");
        assert_eq!(serde_json::from_str::<Stamp>(&json).unwrap(), at);
    }

    #[test]
    fn a_clock_that_is_far_off_is_written_as_well() {
        let day = Duration::from_secs(86_400);
        assert_eq!(Stamp::from(UNIX_EPOCH - day).to_string(), "1970-01-01T00:00:00.000Z");
        let far = Stamp::from(UNIX_EPOCH + 4_000_000 * day);
        assert_eq!(far.after(day).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Stamp::from(UNIX_EPOCH).before(day).unix_ms(), 0);
    }
}
