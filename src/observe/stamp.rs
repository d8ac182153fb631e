//! When did it happen, as people and other machines read it? Wall-clock time decides nothing here: it is only told.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A moment by the wall clock, to the millisecond: in JSON and in text RFC 3339 in UTC, `2026-01-31T12:00:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(SystemTime);

/// 9999-12-31T23:59:59.999Z: RFC 3339 writes none that is later.
const LATEST: Duration = Duration::from_millis(253_402_300_799_999);

impl Stamp {
    /// This moment, to the millisecond. One that RFC 3339 cannot write becomes the nearest that it can.
    #[must_use]
    pub fn new(at: SystemTime) -> Self {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(LATEST);
        let whole = Duration::from_secs(since.as_secs()) + Duration::from_millis(u64::from(since.subsec_millis()));
        Self(SystemTime::UNIX_EPOCH + whole)
    }

    /// So many milliseconds after 1970 began in UTC.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// How much later this one is; none if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.duration_since(earlier.0).unwrap_or_default()
    }

    /// So much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        self.0.checked_add(duration).map_or(self, Self::new)
    }

    /// So much earlier.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        self.0.checked_sub(duration).map_or(self, Self::new)
    }
}

impl From<Stamp> for SystemTime {
    fn from(stamp: Stamp) -> Self {
        stamp.0
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis(self.0).fmt(f)
    }
}

impl std::str::FromStr for Stamp {
    type Err = humantime::TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_rfc3339(text).map(Self::new)
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
        let at = Stamp::new(SystemTime::UNIX_EPOCH + Duration::from_micros(1_769_860_800_123_999));
        assert_eq!(at.to_string(), "2026-01-31T12:00:00.123Z");
        assert_eq!(at.to_string().parse::<Stamp>().unwrap(), at);
        let json = serde_json::to_string(&at).unwrap();
        assert_eq!(json, "\"2026-01-31T12:00:00.123Z\"");
        assert_eq!(serde_json::from_str::<Stamp>(&json).unwrap(), at);
    }

    #[test]
    fn a_clock_that_is_far_off_is_written_as_well() {
        let day = Duration::from_secs(86_400);
        assert_eq!(Stamp::new(SystemTime::UNIX_EPOCH - day).to_string(), "1970-01-01T00:00:00.000Z");
        let far = Stamp::new(SystemTime::UNIX_EPOCH + 4_000_000 * day);
        assert_eq!(far.after(day).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Stamp::new(SystemTime::UNIX_EPOCH).before(day).unix_ms(), 0);
    }
}
