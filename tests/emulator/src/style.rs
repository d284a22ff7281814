//! Spelling: JSON as one vendor or another writes it, times, hexadecimal.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::http::JsonStyle;

/// Seconds since 1970.
pub(crate) fn epoch(at: SystemTime) -> u64 {
    since_epoch(at).as_secs()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn render(value: &Value, style: JsonStyle) -> String {
    match style {
        JsonStyle::Compact => value.to_string(),
        JsonStyle::Spaced => spaced(value),
    }
}

/// `{"a" : "x\/y", "b" : [1, 2]}` (T-E5).
fn spaced(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|(key, value)| {
                    format!("{} : {}", slashed(&Value::from(key.as_str())), spaced(value))
                })
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(spaced).collect::<Vec<_>>().join(", "))
        }
        scalar => slashed(scalar),
    }
}

/// JSON with `/` escaped, which RFC 8259 §7 allows and nearly nobody does.
pub(crate) fn slashed(value: &Value) -> String {
    value.to_string().replace('/', "\\/")
}

/// `2021-10-04T15:04:04.9299072Z` with so many fraction digits (V-E14).
pub(crate) fn rfc3339(at: SystemTime, digits: usize) -> String {
    let since = since_epoch(at);
    let ((year, month, day), (hour, minute, second)) = civil(since.as_secs());
    let nanoseconds = format!("{:09}", since.subsec_nanos());
    let fraction = match digits {
        0 => String::new(),
        1..=9 => format!(".{}", &nanoseconds[..digits]),
        _ => format!(".{nanoseconds:0<digits$}"),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// An HTTP date, IMF-fixdate (RFC 9110 §5.6.7), for `Retry-After`.
pub fn http_date(at: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = epoch(at);
    let ((year, month, day), (hour, minute, second)) = civil(seconds);
    let weekday = DAYS[(seconds / 86_400 % 7) as usize];
    let month = MONTHS[month as usize - 1];
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Date and time of day in UTC. Years are counted from March, so that the leap day comes last.
fn civil(seconds: u64) -> ((u64, u64, u64), (u64, u64, u64)) {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468; // days since 0000-03-01
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    ((year, month, day), (rest / 3_600, rest / 60 % 60, rest % 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spelled_as_documented() {
        let at = UNIX_EPOCH + Duration::new(1_633_359_844, 929_907_200);
        assert_eq!(rfc3339(at, 7), "2021-10-04T15:04:04.9299072Z");
        assert_eq!(rfc3339(at, 0), "2021-10-04T15:04:04Z");
        assert_eq!(http_date(at), "Mon, 04 Oct 2021 15:04:04 GMT");
        let leap_day = UNIX_EPOCH + Duration::from_secs(1_709_164_800);
        assert_eq!(rfc3339(leap_day, 0), "2024-02-29T00:00:00Z");
    }

    #[test]
    fn spaced_json_escapes_slashes_and_stays_json() {
        let value = serde_json::json!({ "iss": "https://a/b", "scope": ["x", "y"], "n": 299 });
        let text = render(&value, JsonStyle::Spaced);
        assert!(text.contains(r#""iss" : "https:\/\/a\/b""#), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
