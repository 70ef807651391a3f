//! HOT: arithmetic on the stack.
//! The calendar periods that limits are for (spec/plugins.md C.1).
//! Always: windows are aligned to the calendar, in UTC.

use serde_json::Map;
use serde_json::Value;

use crate::entity::schema::Field;
use crate::stdx::clock::Civil;

/// How many periods there are.
pub const PERIODS: usize = 6;

/// The limits of a configuration, by period.
pub const FIELDS: [Field; PERIODS] = [
    Field::number("second").gt(0),
    Field::number("minute").gt(0),
    Field::number("hour").gt(0),
    Field::number("day").gt(0),
    Field::number("month").gt(0),
    Field::number("year").gt(0),
];

/// A second, a minute, an hour, a day, a month or a year, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub u8);

impl Period {
    /// All, shortest first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..PERIODS as u8).map(Self)
    }

    /// As in configurations.
    pub fn name(self) -> &'static str {
        ["second", "minute", "hour", "day", "month", "year"][self.index()]
    }

    /// As in header names.
    pub fn title(self) -> &'static str {
        ["Second", "Minute", "Hour", "Day", "Month", "Year"][self.index()]
    }

    /// Position among all.
    pub fn index(self) -> usize {
        usize::from(self.0) % PERIODS
    }

    /// Seconds that a counter of the period lives; months and years have nominal lengths.
    pub fn length_s(self) -> u64 {
        [1, 60, 3600, 86_400, 2_592_000, 31_536_000][self.index()]
    }

    /// First second of the window that `now_s` lies in, since 1970.
    pub fn window_start_s(self, now_s: u64) -> u64 {
        match self.index() {
            0..=3 => now_s - now_s % self.length_s(),
            month_or_year => {
                let c = Civil::from_unix(now_s);
                let into_day = now_s % 86_400;
                let mut days = u64::from(c.day - 1);
                if month_or_year == 5 {
                    let leap = c.year.is_multiple_of(4) && (!c.year.is_multiple_of(100) || c.year.is_multiple_of(400));
                    let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][(c.month as usize - 1) % 12];
                    days += before + u64::from(leap && c.month > 2);
                }
                now_s - into_day - days * 86_400
            }
        }
    }

    /// When the window that began at `start_s` ends.
    pub fn window_end_s(self, start_s: u64) -> u64 {
        // A month is at most 31 days long, a year at most 366: the first second of the next lies in the day after.
        match self.index() {
            4 => self.window_start_s(start_s + 31 * 86_400),
            5 => self.window_start_s(start_s + 366 * 86_400),
            _ => start_s + self.length_s(),
        }
    }

    /// Seconds until the counter begins anew, at least 1.
    pub fn reset_s(self, now_s: u64) -> u64 {
        let passed = now_s - self.window_start_s(now_s);
        self.length_s().saturating_sub(passed).max(1)
    }
}

/// A limit for some of the periods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits([Option<u64>; PERIODS]);

impl Limits {
    /// The limits of a configuration. A fraction counts as the whole number above it, as the request that reaches it passes.
    pub fn of(config: &Map<String, Value>) -> Self {
        let limit = |period: Period| Some(config.get(period.name())?.as_f64()?.ceil() as u64);
        let mut limits = [None; PERIODS];
        for period in Period::all() {
            limits[period.index()] = limit(period);
        }
        Self(limits)
    }

    /// The periods that are limited, shortest first, with their limits.
    pub fn each(&self) -> impl DoubleEndedIterator<Item = (Period, u64)> + '_ {
        Period::all().filter_map(|period| Some((period, self.0[period.index()]?)))
    }
}

/// What is left of some limits, before a request is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Remaining([Option<(u64, i64)>; PERIODS]);

impl Remaining {
    /// `left` is negative where more was counted than may be.
    pub fn set(&mut self, period: Period, limit: u64, left: i64) {
        self.0[period.index()] = Some((limit, left));
    }

    /// Period, limit and what is left, shortest first.
    pub fn each(&self) -> impl DoubleEndedIterator<Item = (Period, u64, i64)> + '_ {
        Period::all().filter_map(|period| self.0[period.index()].map(|(limit, left)| (period, limit, left)))
    }

    /// The shortest period of which nothing is left.
    pub fn spent(&self) -> Option<Period> {
        self.each().find(|(.., left)| *left <= 0).map(|(period, ..)| period)
    }
}

/// Whether no longer period has a lower limit than a shorter one.
///
/// # Errors
/// The sentence that says which has.
pub fn are_ordered(config: &Map<String, Value>) -> Result<(), String> {
    let mut shorter: Option<(&str, f64)> = None;
    for period in Period::all() {
        let Some(limit) = config.get(period.name()).and_then(Value::as_f64) else { continue };
        if let Some((name, least)) = shorter
            && limit < least
        {
            let longer = period.name();
            return Err(format!(
                "The limit for {longer}({limit:?}) cannot be lower than the limit for {name}({least:?})"
            ));
        }
        shorter = Some((period.name(), limit));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(now_s: u64, starts: [u64; PERIODS]) {
        let got: Vec<u64> = Period::all().map(|period| period.window_start_s(now_s)).collect();
        assert_eq!(got, starts, "{now_s}");
    }

    #[test]
    fn windows_begin_with_the_calendar() {
        // 2024-02-29 12:34:56, a leap day, and 2023-03-01 00:00:00.
        check(
            1_709_210_096,
            [1_709_210_096, 1_709_210_040, 1_709_208_000, 1_709_164_800, 1_706_745_600, 1_704_067_200],
        );
        check(
            1_677_628_800,
            [1_677_628_800, 1_677_628_800, 1_677_628_800, 1_677_628_800, 1_677_628_800, 1_672_531_200],
        );
        assert_eq!(Period(4).window_end_s(1_706_745_600), 1_709_251_200);
        assert_eq!(Period(5).window_end_s(1_704_067_200), 1_735_689_600);
        assert_eq!(Period(1).window_end_s(60), 120);
        // 2024-12-31 23:59:59
        assert_eq!(Period(5).window_start_s(1_735_689_599), 1_704_067_200);
    }

    #[test]
    fn a_reset_is_at_least_a_second_away() {
        assert_eq!(Period(0).reset_s(1_709_210_096), 1);
        assert_eq!(Period(1).reset_s(1_709_210_096), 4);
        // The 31st day of a month of 31 days lies beyond a month's nominal length.
        assert_eq!(Period(4).reset_s(1_711_920_000 - 60), 1);
    }

    #[test]
    fn a_longer_period_may_not_have_a_lower_limit() {
        let config = |value: Value| value.as_object().unwrap().clone();
        assert_eq!(are_ordered(&config(json!({"second": 2, "hour": 2}))), Ok(()));
        assert_eq!(
            are_ordered(&config(json!({"minute": 10, "second": null, "hour": 5}))).unwrap_err(),
            "The limit for hour(5.0) cannot be lower than the limit for minute(10.0)"
        );
        let limits = Limits::of(&config(json!({"minute": 1.5, "hour": 5})));
        assert_eq!(limits.each().collect::<Vec<_>>(), [(Period(1), 2), (Period(2), 5)]);
    }
}
