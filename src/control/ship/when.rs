//! Points in time as texts, in UTC.

/// A second, taken apart (proleptic Gregorian calendar).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    year: u64,
    /// From 1.
    month: u64,
    day: u64,
    second_of_day: u64,
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl When {
    /// Of microseconds since 1970.
    pub fn of_unix_us(unix_us: u64) -> Self {
        let second = unix_us / 1_000_000;
        // Years that begin in March have their leap day at the end; day 0 is 0000-03-01.
        let day = second / 86_400 + 719_468;
        let (era, of_era) = (day / 146_097, day % 146_097);
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let march_month = (5 * of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Self {
            year: year + era * 400 + u64::from(month <= 2),
            month,
            day: of_year - (153 * march_month + 2) / 5 + 1,
            second_of_day: second % 86_400,
        }
    }

    fn time(&self) -> String {
        let s = self.second_of_day;
        format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    }

    /// `2026-11-23T18:00:00Z`
    pub fn to_rfc3339(self) -> String {
        format!("{:04}-{:02}-{:02}T{}Z", self.year, self.month, self.day, self.time())
    }

    /// `Nov  3 18:00:00`, as classic syslog has it.
    pub fn to_syslog(self) -> String {
        let month = MONTHS.get(self.month as usize - 1).copied().unwrap_or_default();
        format!("{month} {:2} {}", self.day, self.time())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_texts_in_utc() {
        for (unix_s, rfc3339, syslog) in [
            (0, "1970-01-01T00:00:00Z", "Jan  1 00:00:00"),
            (951_782_400, "2000-02-29T00:00:00Z", "Feb 29 00:00:00"),
            (1_709_164_799, "2024-02-28T23:59:59Z", "Feb 28 23:59:59"),
            (1_735_689_599, "2024-12-31T23:59:59Z", "Dec 31 23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00Z", "Mar  1 00:00:00"),
        ] {
            let when = When::of_unix_us(unix_s * 1_000_000 + 999_000);
            assert_eq!((when.to_rfc3339().as_str(), when.to_syslog().as_str()), (rfc3339, syslog));
        }
    }
}
