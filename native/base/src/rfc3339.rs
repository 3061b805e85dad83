//! Timestamps as RFC 3339 in UTC.

use chrono::{DateTime, Datelike as _, Timelike as _};

/// Milliseconds since 1970 to the second, such as `2026-11-30T09:21:15Z`. Empty for a time beyond the calendar's range.
#[must_use]
pub fn seconds(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms).map_or_else(String::new, |moment| {
        let moment = moment.naive_utc();
        let (date, time) = (moment.date(), moment.time());
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            date.year(),
            date.month(),
            date.day(),
            time.hour(),
            time.minute(),
            time.second()
        )
    })
}

/// Milliseconds since 1970 to the millisecond, such as `2026-11-30T09:21:15.042Z`. Empty for a time beyond the calendar's
/// range.
#[must_use]
pub fn millis(ms: i64) -> String {
    let mut text = seconds(ms);
    if text.pop().is_some() {
        text.push_str(&format!(".{:03}Z", ms.rem_euclid(1_000)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dates around leap days and centuries.
    #[test]
    fn dates() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_764_031_409_123, "2025-11-25T00:43:29.123Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000, "10000-01-01T00:00:00.000Z"),
            (-62_167_219_200_000, "0000-01-01T00:00:00.000Z"),
            (i64::MAX, ""),
        ] {
            assert_eq!(text, millis(ms));
        }
        assert_eq!("2025-11-25T00:43:29Z", seconds(1_764_031_409_123));
        assert_eq!("", seconds(i64::MIN));
    }
}
