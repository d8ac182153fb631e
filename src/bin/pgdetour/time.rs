//! Times as people read them.

use std::time::Duration;

/// A time with two or three digits, as people read it.
pub(crate) fn brief(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        ..9.95 => format!("{ms:.1} ms"),
        ..999.5 => format!("{ms:.0} ms"),
        _ => format!("{:.2} s", ms / 1e3),
    }
}

/// A bound: seconds up to a minute, then minutes and hours. Rounded up, so that it still holds.
pub(crate) fn bound(time: Duration) -> String {
    let tenths = time.as_millis().div_ceil(100);
    match time.as_millis() {
        ms @ ..1000 => format!("{ms} ms"),
        ..60_000 if tenths.is_multiple_of(10) => format!("{} s", tenths / 10),
        ..60_000 => format!("{}.{} s", tenths / 10, tenths % 10),
        ms => humantime::format_duration(Duration::from_secs(u64::try_from(ms.div_ceil(1000)).unwrap_or(u64::MAX)))
            .to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_times_have_two_or_three_digits() {
        let of = |us| brief(Duration::from_micros(us));
        assert_eq!(
            [of(0), of(3_140), of(9_960), of(320_400), of(999_600)],
            ["0.0 ms", "3.1 ms", "10 ms", "320 ms", "1.00 s"]
        );
    }

    #[test]
    fn bounds_are_rounded_up() {
        let of = |ms| bound(Duration::from_millis(ms));
        assert_eq!(
            [of(250), of(5_500), of(8_501), of(33_000), of(135_000)],
            ["250 ms", "5.5 s", "8.6 s", "33 s", "2m 15s"]
        );
    }
}
