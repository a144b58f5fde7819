//! Formats times for people.

use jiff::{Timestamp, tz::TimeZone};

/// Formats Unix seconds as local date and time; 0 is "never".
pub fn local(seconds: u64) -> String {
    at(seconds, &TimeZone::system())
}

/// The local time of day.
pub fn now() -> String {
    Timestamp::now().to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string()
}

fn at(seconds: u64, zone: &TimeZone) -> String {
    if seconds == 0 {
        return "never".into();
    }
    let time = i64::try_from(seconds).ok().and_then(|s| Timestamp::from_second(s).ok());
    time.map_or_else(
        || "unknown".into(),
        |time| time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use jiff::tz::Offset;

    use super::*;

    #[test]
    fn times_are_shown_in_the_local_zone() {
        let zone = TimeZone::fixed(Offset::constant(2));
        assert_eq!(at(1_700_000_000, &zone), "2023-11-15 00:13");
        assert_eq!(at(0, &zone), "never");
        assert_eq!(at(u64::MAX, &zone), "unknown");
    }
}
