//! Kinds that count: switches, whole numbers, sizes and times.
//! Owns: the units. A time without a unit is in seconds, a size without one in bytes, as in nginx.
//! Always: what `describe` shows is accepted by `parse` again.

use serde_json::{Value as Json, json};

use super::kind::{Kind, Problem};

/// `on` or `off`, shown as a JSON boolean.
pub struct OnOff;
impl Kind for OnOff {
    type Value = bool;
    const ACCEPTS: &'static str = "on, off";
    fn parse(text: &str) -> Result<bool, Problem> {
        match text.to_ascii_lowercase().as_str() {
            "on" | "true" => Ok(true),
            "off" | "false" => Ok(false),
            _ => Err(Problem::NotAccepted),
        }
    }
    fn describe(value: &bool) -> Json {
        json!(value)
    }
}

/// `on` or `off`, shown as that word: Kong hands these to nginx as text.
pub struct OnOffWord;
impl Kind for OnOffWord {
    type Value = bool;
    const ACCEPTS: &'static str = OnOff::ACCEPTS;
    fn parse(text: &str) -> Result<bool, Problem> {
        OnOff::parse(text)
    }
    fn describe(value: &bool) -> Json {
        json!(if *value { "on" } else { "off" })
    }
}

/// A whole number in `MIN..=MAX`.
pub struct Count<const MIN: u32, const MAX: u32>;
impl<const MIN: u32, const MAX: u32> Kind for Count<MIN, MAX> {
    type Value = u32;
    const ACCEPTS: &'static str = "a whole number";
    fn parse(text: &str) -> Result<u32, Problem> {
        let count: u32 = text.parse().map_err(|_| Problem::NotAccepted)?;
        if (MIN..=MAX).contains(&count) { Ok(count) } else { Err(Problem::Because(format!("not in {MIN}-{MAX}"))) }
    }
    fn describe(value: &u32) -> Json {
        json!(value)
    }
}

/// A number of bytes in `MIN..=MAX`, with an optional unit `k`, `m` or `g` (powers of 1024).
pub struct Bytes<const MIN: u64, const MAX: u64>;
impl<const MIN: u64, const MAX: u64> Kind for Bytes<MIN, MAX> {
    type Value = u64;
    const ACCEPTS: &'static str = "bytes, with an optional unit k, m or g (8k, 10m)";
    fn parse(text: &str) -> Result<u64, Problem> {
        let bytes = bytes(text).ok_or(Problem::NotAccepted)?;
        if (MIN..=MAX).contains(&bytes) {
            Ok(bytes)
        } else {
            Err(Problem::Because(format!("not in {}-{}", bytes_text(MIN), bytes_text(MAX))))
        }
    }
    fn describe(value: &u64) -> Json {
        json!(bytes_text(*value))
    }
}

/// A time in `MIN_MS..=MAX_MS` milliseconds; `0` is refused unless `MIN_MS` is 0.
pub struct Time<const MIN_MS: u64, const MAX_MS: u64>;
impl<const MIN_MS: u64, const MAX_MS: u64> Kind for Time<MIN_MS, MAX_MS> {
    type Value = u64;
    const ACCEPTS: &'static str = "seconds, or a number with a unit ms, s, m, h or d (75, 75s, 500ms)";
    fn parse(text: &str) -> Result<u64, Problem> {
        let ms = milliseconds(text).ok_or(Problem::NotAccepted)?;
        if (MIN_MS..=MAX_MS).contains(&ms) {
            Ok(ms)
        } else {
            Err(Problem::Because(format!("not in {}-{} seconds", seconds_text(MIN_MS), seconds_text(MAX_MS))))
        }
    }
    fn describe(value: &u64) -> Json {
        if value.is_multiple_of(1000) { json!(value / 1000) } else { json!(*value as f64 / 1000.0) }
    }
}

/// A [`Time`] that may be left unset.
pub struct OptionalTime;
impl Kind for OptionalTime {
    type Value = Option<u64>;
    const ACCEPTS: &'static str = Time::<0, YEAR_MS>::ACCEPTS;
    fn parse(text: &str) -> Result<Option<u64>, Problem> {
        if text.is_empty() { Ok(None) } else { Time::<0, YEAR_MS>::parse(text).map(Some) }
    }
    fn describe(value: &Option<u64>) -> Json {
        value.as_ref().map_or(Json::Null, Time::<0, YEAR_MS>::describe)
    }
}

/// The longest time that any setting takes.
pub const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;

fn bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()?.to_ascii_lowercase() {
        b'k' => (&text[..text.len() - 1], 10),
        b'm' => (&text[..text.len() - 1], 20),
        b'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.trim_end().parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn bytes_text(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        b if b % (1 << 30) == 0 => format!("{}g", b >> 30),
        b if b % (1 << 20) == 0 => format!("{}m", b >> 20),
        b if b % (1 << 10) == 0 => format!("{}k", b >> 10),
        b => b.to_string(),
    }
}

fn milliseconds(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit_ms: u64 = match unit.trim_start() {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit_ms);
    }
    let ms = number.parse::<f64>().ok()? * unit_ms as f64;
    (ms.is_finite() && ms < u64::MAX as f64).then_some(ms.round() as u64)
}

fn seconds_text(ms: u64) -> String {
    if ms.is_multiple_of(1000) { (ms / 1000).to_string() } else { format!("{}", ms as f64 / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_unless_they_say_otherwise() {
        for (text, want) in [
            ("75", 75_000),
            ("75s", 75_000),
            ("500ms", 500),
            ("1.5", 1500),
            ("0.25 s", 250),
            ("10m", 600_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("0", 0),
        ] {
            assert_eq!(Time::<0, YEAR_MS>::parse(text), Ok(want), "{text}");
            let shown = Time::<0, YEAR_MS>::describe(&want).to_string();
            assert_eq!(Time::<0, YEAR_MS>::parse(&shown), Ok(want), "{text} as {shown}");
        }
    }

    #[test]
    fn sizes_are_bytes_unless_they_say_otherwise() {
        for (text, want) in [("0", 0), ("8k", 8192), ("8K", 8192), ("1000", 1000), ("10m", 10 << 20), ("2g", 2 << 30)] {
            assert_eq!(Bytes::<0, { u64::MAX }>::parse(text), Ok(want), "{text}");
            assert_eq!(Bytes::<0, { u64::MAX }>::parse(&bytes_text(want)), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_of_its_kind_is_refused() {
        for text in ["", "x", "-1", "1e3", "s", "1 2", "75s 60s", "99999999999999999999", "1y", "."] {
            assert!(Time::<0, YEAR_MS>::parse(text).is_err(), "{text}");
        }
        for text in ["", "k", "-1", "1.5k", "8kb", "99999999999g", "8ké"] {
            assert!(Bytes::<0, { u64::MAX }>::parse(text).is_err(), "{text}");
        }
        assert_eq!(Time::<1, 2000>::parse("0"), Err(Problem::because("not in 0.001-2 seconds")));
        assert_eq!(Bytes::<1024, 8192>::parse("9k"), Err(Problem::because("not in 1k-8k")));
        assert_eq!(Count::<1, 5>::parse("6"), Err(Problem::because("not in 1-5")));
    }
}
