//! HOT: no allocation, no lock.
//! The clock of one core: milliseconds since the process started, wall time, and the text of the `Date` header.
//! Owns: every reading of time in layers 0-3 and on the data plane. Never: sleeps.
//! Always: a core that was given a time by hand (a test) sees only that time.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Length of an IMF-fixdate (RFC 9110 section 5.6.7), such as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub const DATE_BYTES: usize = 29;

/// One core's clock. Cheap to read; [`Clock::refresh`] asks the system.
pub struct Clock {
    origin: Instant,
    /// Wall time at `origin`, in microseconds since 1970.
    origin_unix_us: Cell<u64>,
    /// Microseconds since `origin`, as of the last refresh.
    now_us: Cell<u64>,
    date_second: Cell<u64>,
    date: Cell<[u8; DATE_BYTES]>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock. All clocks of the process count from the same instant, so that what one core noted another can read.
    pub fn new() -> Self {
        let clock = Self {
            origin: origin(),
            origin_unix_us: Cell::new(0),
            now_us: Cell::new(0),
            date_second: Cell::new(u64::MAX),
            date: Cell::new([b' '; DATE_BYTES]),
        };
        clock.tick();
        clock
    }

    /// Reads the system's monotonic clock. Microseconds since the process's first clock was made.
    pub fn refresh(&self) -> u64 {
        let now = self.origin.elapsed().as_micros() as u64;
        self.now_us.set(now);
        now
    }

    /// Called some times a second: follows steps of the wall clock and renews the `Date` text.
    pub fn tick(&self) {
        let now = self.refresh();
        self.origin_unix_us.set(unix_us().saturating_sub(now));
        let second = self.unix_us() / 1_000_000;
        if second != self.date_second.get() {
            self.date_second.set(second);
            self.date.set(date_text(second));
        }
    }

    /// Microseconds since the process's first clock was made, as of the last refresh.
    pub fn now_us(&self) -> u64 {
        self.now_us.get()
    }

    /// Milliseconds since the clock was made, as of the last refresh.
    pub fn now_ms(&self) -> u64 {
        self.now_us.get() / 1000
    }

    /// Wall time as of the last refresh, in microseconds since 1970.
    pub fn unix_us(&self) -> u64 {
        self.origin_unix_us.get() + self.now_us.get()
    }

    /// Text for a `Date` header.
    pub fn date(&self) -> [u8; DATE_BYTES] {
        self.date.get()
    }
}

/// When the first clock of the process was made.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// Milliseconds since the process started, as every [`Clock`] counts them, for code that owns none.
pub fn process_ms() -> u64 {
    origin().elapsed().as_millis() as u64
}

fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_micros() as u64
}

/// Wall time now, in milliseconds since 1970, for code that owns no [`Clock`].
pub fn unix_ms() -> u64 {
    unix_us() / 1000
}

/// A calendar date and time of day, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    pub year: u32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    /// 0 is Sunday.
    pub weekday: u32,
}

impl Civil {
    /// From seconds since 1970. The day count is cut into 400-year cycles that begin on 1 March, so that a leap day ends a
    /// year and needs no case of its own.
    pub fn from_unix(second: u64) -> Self {
        let days = second / 86_400;
        let in_day = (second % 86_400) as u32;
        let shifted = days + 719_468;
        let cycle = shifted / 146_097;
        let day_of_cycle = (shifted % 146_097) as u32;
        let year_of_cycle = (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
        let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Self {
            year: (cycle * 400) as u32 + year_of_cycle + u32::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: in_day / 3600,
            minute: in_day / 60 % 60,
            second: in_day % 60,
            weekday: ((days + 4) % 7) as u32,
        }
    }
}

const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
const WEEKDAYS: &[u8; 21] = b"SunMonTueWedThuFriSat";

/// Three letters of a month, 1 to 12.
pub fn month_name(month: u32) -> &'static str {
    let at = (month.clamp(1, 12) as usize - 1) * 3;
    std::str::from_utf8(&MONTHS[at..at + 3]).unwrap_or("Jan")
}

fn two(out: &mut [u8], value: u32) {
    out[0] = b'0' + (value / 10 % 10) as u8;
    out[1] = b'0' + (value % 10) as u8;
}

fn date_text(second: u64) -> [u8; DATE_BYTES] {
    let c = Civil::from_unix(second);
    let mut out = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let weekday = c.weekday as usize * 3;
    out[..3].copy_from_slice(&WEEKDAYS[weekday..weekday + 3]);
    two(&mut out[5..7], c.day);
    out[8..11].copy_from_slice(month_name(c.month).as_bytes());
    two(&mut out[12..14], c.year / 100);
    two(&mut out[14..16], c.year % 100);
    two(&mut out[17..19], c.hour);
    two(&mut out[20..22], c.minute);
    two(&mut out[23..25], c.second);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(second: u64, want: &str) {
        assert_eq!(std::str::from_utf8(&date_text(second)).unwrap(), want);
    }

    #[test]
    fn dates_are_written_as_imf_fixdate() {
        check(0, "Thu, 01 Jan 1970 00:00:00 GMT");
        check(784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT");
        check(951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT");
        check(1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT");
        check(4_102_444_799, "Thu, 31 Dec 2099 23:59:59 GMT");
    }

    #[test]
    fn days_follow_each_other_without_gap() {
        let mut last = Civil::from_unix(0);
        for day in 1..60_000u64 {
            let c = Civil::from_unix(day * 86_400);
            let next_day = c.day == last.day + 1 && c.month == last.month && c.year == last.year;
            let next_month = c.day == 1 && c.month == last.month + 1 && c.year == last.year && last.day >= 28;
            let next_year = c.day == 1 && c.month == 1 && c.year == last.year + 1 && last.month == 12 && last.day == 31;
            assert!(next_day || next_month || next_year, "{last:?} then {c:?}");
            assert_eq!(c.weekday, (last.weekday + 1) % 7);
            last = c;
        }
    }
}
