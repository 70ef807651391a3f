//! HOT: finding a cookie borrows from the request.
//! Cookies as requests bring them and as responses set them (RFC 6265).

use crate::http::fields::Fields;
use crate::http::known::Known;

/// The cookies of a request, in order.
pub(super) fn pairs<'v>(fields: &'v Fields, source: &'v [u8]) -> impl Iterator<Item = (&'v [u8], &'v [u8])> {
    let pairs = fields.values(source, Known::Cookie).flat_map(|line| line.split(|&byte| byte == b';'));
    pairs.filter_map(|pair| {
        let at = pair.iter().position(|&byte| byte == b'=')?;
        Some((pair.get(..at)?.trim_ascii(), pair.get(at + 1..)?.trim_ascii()))
    })
}

/// A cookie that a configuration sets: its name and what goes with every value of it.
pub(super) struct CookieRules {
    pub name: Box<str>,
    /// Such as `; Path=/; Secure`.
    pub attributes: Box<str>,
}

impl CookieRules {
    /// The first value that a request brings.
    pub fn find<'v>(&self, fields: &'v Fields, source: &'v [u8]) -> Option<&'v [u8]> {
        pairs(fields, source).find(|(name, _)| *name == self.name.as_bytes()).map(|(_, value)| value)
    }

    /// Sets a value, beside other cookies; with `max_age_s` the client keeps it when it ends.
    pub fn set(&self, fields: &mut Fields, value: &str, max_age_s: Option<u64>) {
        let age = max_age_s.map_or(String::new(), |age_s| format!("; Max-Age={age_s}"));
        let text = format!("{}={value}{}{age}", self.name, self.attributes);
        fields.append(Known::SetCookie, text.as_bytes());
    }

    /// Makes the client forget it.
    pub fn forget(&self, fields: &mut Fields) {
        let text = format!("{}={}; Expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0", self.name, self.attributes);
        fields.append(Known::SetCookie, text.as_bytes());
    }
}
