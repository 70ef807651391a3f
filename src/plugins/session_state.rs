//! HOT: read where it lies.
//! What a session knows: since when it is, and who asks.
//! Owns: how that is written down, and when a session ends or is renewed. Never: seals anything, reads the time.

use uuid::Uuid;

/// Who a session says a request is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Who<'a> {
    pub consumer: Uuid,
    pub credential: Uuid,
    /// Names of the groups that authentication told, each ended by a newline; a name has none.
    pub groups: &'a str,
}

/// The name under which a session is known, which nobody can guess.
pub(super) type Id = [u8; 32];

/// When what happened, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Course {
    pub id: Id,
    pub created_s: u64,
    /// When it got its id.
    pub rolled_s: u64,
    /// When it was last noted that it is used.
    pub used_s: u64,
}

/// How long a session may last, in seconds; 0: without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timeouts {
    pub idling_s: u64,
    pub rolling_s: u64,
    pub absolute_s: u64,
}

/// What a valid session needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// That it is used should be noted.
    Touch,
    /// A new id.
    Roll,
}

/// That a session is used is noted no more often.
const TOUCH_S: u64 = 60;
const COURSE_BYTES: usize = 32 + 3 * 8;
const WHO_BYTES: usize = 2 * 16;

impl Course {
    /// Begins now.
    pub fn new(id: Id, now_s: u64) -> Self {
        Self { id, created_s: now_s, rolled_s: now_s, used_s: now_s }
    }

    /// Appends it to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id);
        [self.created_s, self.rolled_s, self.used_s].iter().for_each(|at_s| out.extend(at_s.to_le_bytes()));
    }

    /// What stands at the beginning, and the rest.
    pub fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (own, rest) = bytes.split_at_checked(COURSE_BYTES)?;
        let (id, times) = own.split_first_chunk()?;
        let mut times = times.chunks_exact(8).map(|chunk| chunk.try_into().map_or(0, u64::from_le_bytes));
        let course = Self { id: *id, created_s: times.next()?, rolled_s: times.next()?, used_s: times.next()? };
        Some((course, rest))
    }

    /// What is due; `None`: the session has ended.
    pub fn due(&self, timeouts: &Timeouts, now_s: u64) -> Option<Due> {
        if self.left_s(timeouts, now_s) == Some(0) {
            return None;
        }
        let rolling = timeouts.rolling_s;
        if rolling > 0 && now_s.saturating_sub(self.rolled_s) > rolling / 4 * 3 {
            return Some(Due::Roll);
        }
        let idling = timeouts.idling_s;
        let is_touched = idling == 0 || now_s.saturating_sub(self.used_s) < TOUCH_S.min(idling / 4);
        Some(if is_touched { Due::Nothing } else { Due::Touch })
    }

    /// Seconds until it ends unless it is used; `None`: it does not end.
    pub fn left_s(&self, timeouts: &Timeouts, now_s: u64) -> Option<u64> {
        self.ends(timeouts).into_iter().flatten().min().map(|end_s| end_s.saturating_sub(now_s))
    }

    /// When it ends for having idled, for its id being old, for being old itself.
    pub fn ends(&self, timeouts: &Timeouts) -> [Option<u64>; 3] {
        let end = |from_s: u64, lasts_s: u64| (lasts_s > 0).then(|| from_s.saturating_add(lasts_s));
        [
            end(self.used_s, timeouts.idling_s),
            end(self.rolled_s, timeouts.rolling_s),
            end(self.created_s, timeouts.absolute_s),
        ]
    }
}

impl<'a> Who<'a> {
    /// Appends it to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.consumer.as_bytes());
        out.extend_from_slice(self.credential.as_bytes());
        out.extend_from_slice(self.groups.as_bytes());
    }

    /// What the bytes say.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (ids, groups) = bytes.split_at_checked(WHO_BYTES)?;
        let (consumer, credential) = ids.split_at(WHO_BYTES / 2);
        Some(Self {
            consumer: Uuid::from_slice(consumer).ok()?,
            credential: Uuid::from_slice(credential).ok()?,
            groups: std::str::from_utf8(groups).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let course = Course { id: [7; 32], created_s: 1, rolled_s: 2, used_s: u64::MAX };
        let who = Who { consumer: Uuid::from_u128(1), credential: Uuid::from_u128(2), groups: "a\nb c\n" };
        let mut bytes = Vec::new();
        course.write(&mut bytes);
        who.write(&mut bytes);
        let (read, rest) = Course::read(&bytes).unwrap();
        assert_eq!((read, Who::read(rest)), (course, Some(who)));
        for end in 0..COURSE_BYTES + WHO_BYTES {
            assert_eq!(Course::read(&bytes[..end]).and_then(|(_, rest)| Who::read(rest)), None, "{end}");
        }
    }

    #[test]
    fn a_session_ends_by_whichever_time_is_up_first() {
        let timeouts = Timeouts { idling_s: 900, rolling_s: 3600, absolute_s: 10_000 };
        let course = Course { id: [0; 32], created_s: 0, rolled_s: 6000, used_s: 8000 };
        for (now_s, due) in [
            (8000, Some(Due::Nothing)),
            (8059, Some(Due::Nothing)),
            (8060, Some(Due::Touch)),
            (8700, Some(Due::Touch)),
            (8701, Some(Due::Roll)),
            (8899, Some(Due::Roll)),
            (8900, None),
        ] {
            assert_eq!(course.due(&timeouts, now_s), due, "{now_s}");
        }
        let used = Course { used_s: 9500, ..course };
        assert_eq!((used.due(&timeouts, 9599), used.due(&timeouts, 9600)), (Some(Due::Roll), None));
        let rolled = Course { used_s: 9500, rolled_s: 9500, ..course };
        assert_eq!((rolled.due(&timeouts, 9999), rolled.due(&timeouts, 10_000)), (Some(Due::Touch), None));
    }

    #[test]
    fn a_time_of_zero_is_without_end() {
        let endless = Timeouts { idling_s: 0, rolling_s: 0, absolute_s: 0 };
        assert_eq!(Course::new([0; 32], 0).due(&endless, u64::MAX), Some(Due::Nothing));
        assert_eq!(Course::new([0; 32], 0).left_s(&endless, 7), None);
    }
}
