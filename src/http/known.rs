//! HOT: no allocation, no formatting.
//! Header names that some part of the gateway acts on, as one byte.
//! Owns: the table of names and the lookup from bytes. Never: keeps a value. Always: comparing names ignores case, and
//! printing one gives its usual spelling.

macro_rules! known_names {
    ($($variant:ident $text:literal),+ $(,)?) => {
        /// A header name that some part of the gateway acts on, or `Other`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Known {
            $(#[doc = concat!("`", $text, "`")] $variant,)+
            /// Every name that is not in the table.
            Other,
        }

        /// Every known name in its usual spelling, in the order of the variants.
        const NAMES: &[&str] = &[$($text),+];
        const VARIANTS: &[Known] = &[$(Known::$variant),+];
    };
}

known_names! {
    Host "Host",
    Connection "Connection",
    ContentLength "Content-Length",
    TransferEncoding "Transfer-Encoding",
    Expect "Expect",
    Upgrade "Upgrade",
    KeepAlive "Keep-Alive",
    Te "TE",
    Trailer "Trailer",
    Via "Via",
    Proxy "Proxy",
    ProxyConnection "Proxy-Connection",
    ProxyAuthorization "Proxy-Authorization",
    MaxForwards "Max-Forwards",
    Forwarded "Forwarded",
    XForwardedFor "X-Forwarded-For",
    XForwardedProto "X-Forwarded-Proto",
    XForwardedHost "X-Forwarded-Host",
    XForwardedPort "X-Forwarded-Port",
    XForwardedPath "X-Forwarded-Path",
    XForwardedPrefix "X-Forwarded-Prefix",
    XRealIp "X-Real-IP",
    XKongRequestId "X-Kong-Request-Id",
    XKongRequestDebug "X-Kong-Request-Debug",
    XKongRequestDebugLog "X-Kong-Request-Debug-Log",
    XKongRequestDebugToken "X-Kong-Request-Debug-Token",
    XKongUpstreamLatency "X-Kong-Upstream-Latency",
    XKongProxyLatency "X-Kong-Proxy-Latency",
    XKongResponseLatency "X-Kong-Response-Latency",
    XKongAdminLatency "X-Kong-Admin-Latency",
    XKongUpstreamStatus "X-Kong-Upstream-Status",
    KongDebug "Kong-Debug",
    KongRouteId "Kong-Route-Id",
    KongRouteName "Kong-Route-Name",
    KongServiceId "Kong-Service-Id",
    KongServiceName "Kong-Service-Name",
    KongRequestId "Kong-Request-ID",
    XConsumerId "X-Consumer-ID",
    XConsumerCustomId "X-Consumer-Custom-ID",
    XConsumerUsername "X-Consumer-Username",
    XConsumerGroups "X-Consumer-Groups",
    XAuthenticatedGroups "X-Authenticated-Groups",
    XCredentialIdentifier "X-Credential-Identifier",
    XAnonymousConsumer "X-Anonymous-Consumer",
    Apikey "apikey",
    Accept "Accept",
    AcceptEncoding "Accept-Encoding",
    Age "Age",
    Allow "Allow",
    Authorization "Authorization",
    CacheControl "Cache-Control",
    ContentEncoding "Content-Encoding",
    ContentType "Content-Type",
    Cookie "Cookie",
    Date "Date",
    Etag "ETag",
    Expires "Expires",
    Http2Settings "HTTP2-Settings",
    LastModified "Last-Modified",
    Location "Location",
    Origin "Origin",
    Pragma "Pragma",
    Range "Range",
    Referer "Referer",
    RetryAfter "Retry-After",
    SecWebsocketKey "Sec-WebSocket-Key",
    SecWebsocketVersion "Sec-WebSocket-Version",
    Server "Server",
    SetCookie "Set-Cookie",
    UserAgent "User-Agent",
    Vary "Vary",
    WwwAuthenticate "WWW-Authenticate",
}

/// Longest and shortest known name, bytes.
const NAME_BYTES_MAX: usize = 32;
const NAME_BYTES_MIN: usize = 2;

/// The hash is searched at compile time until no two names share a slot, so a lookup is one probe and one comparison.
const SLOTS: usize = 1024;
const EMPTY: u8 = u8::MAX;
const SEED: u32 = find_seed();
static TABLE: [u8; SLOTS] = match fill(SEED) {
    Some(table) => table,
    None => panic!("the seed was searched for"),
};

impl Known {
    /// The name as a value of this type; any case. Unknown names give `Other`.
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        if name.len() < NAME_BYTES_MIN || name.len() > NAME_BYTES_MAX {
            return Self::Other;
        }
        let index = TABLE[slot(name, SEED)] as usize;
        match PATTERNS.get(index) {
            Some(pattern) if pattern.matches(name) => VARIANTS[index],
            _ => Self::Other,
        }
    }

    /// The usual spelling; empty for `Other`.
    #[inline]
    pub fn name(self) -> &'static str {
        match NAMES.get(self as usize) {
            Some(text) => text,
            None => "",
        }
    }

    /// This name's bit in a set of names; zero for `Other`.
    #[inline]
    pub(super) const fn bit(self) -> u128 {
        if self as usize >= NAMES.len() { 0 } else { 1u128 << (self as u8) }
    }
}

/// A known name, to be compared eight bytes at a time.
struct Pattern {
    len: usize,
    /// In lower case; behind its end zero.
    text: [u64; NAME_BYTES_MAX / 8],
    /// The bit that tells the cases apart, where there is a letter.
    case: [u64; NAME_BYTES_MAX / 8],
}

const PATTERNS: &[Pattern] = &{
    let mut patterns =
        [const { Pattern { len: 0, text: [0; NAME_BYTES_MAX / 8], case: [0; NAME_BYTES_MAX / 8] } }; NAMES.len()];
    let mut index = 0;
    while index < NAMES.len() {
        patterns[index] = Pattern::new(NAMES[index].as_bytes());
        index += 1;
    }
    patterns
};

impl Pattern {
    const fn new(name: &[u8]) -> Self {
        let (mut text, mut case) = ([0; NAME_BYTES_MAX / 8], [0; NAME_BYTES_MAX / 8]);
        let mut at = 0;
        while at < name.len() {
            text[at / 8] |= (name[at].to_ascii_lowercase() as u64) << (at % 8 * 8);
            if name[at].is_ascii_alphabetic() {
                case[at / 8] |= 0x20 << (at % 8 * 8);
            }
            at += 1;
        }
        Self { len: name.len(), text, case }
    }

    #[inline]
    fn matches(&self, name: &[u8]) -> bool {
        if name.len() != self.len {
            return false;
        }
        let (words, rest) = name.as_chunks();
        let tail = rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let all = words.iter().map(|word| u64::from_le_bytes(*word)).chain([tail]);
        all.zip(self.text.iter().zip(&self.case)).all(|(word, (text, case))| word | case == *text)
    }
}

/// The set of some names.
pub(super) const fn bits(names: &[Known]) -> u128 {
    let (mut set, mut at) = (0, 0);
    while at < names.len() {
        set |= names[at].bit();
        at += 1;
    }
    set
}

/// Four letters and the length tell all known names apart; letters are folded to lower case by setting one bit.
const fn slot(name: &[u8], seed: u32) -> usize {
    let len = name.len();
    let letters =
        u32::from_le_bytes([name[0] | 0x20, name[len / 2] | 0x20, name[len - 2] | 0x20, name[len - 1] | 0x20]);
    let mixed = (letters ^ (len as u32).wrapping_mul(0x9e37_79b9)).wrapping_mul(seed);
    (mixed >> 22) as usize
}

const fn fill(seed: u32) -> Option<[u8; SLOTS]> {
    let mut table = [EMPTY; SLOTS];
    let mut index = 0;
    while index < NAMES.len() {
        let at = slot(NAMES[index].as_bytes(), seed);
        if table[at] != EMPTY {
            return None;
        }
        table[at] = index as u8;
        index += 1;
    }
    Some(table)
}

const fn find_seed() -> u32 {
    let mut seed = 0x85eb_ca6bu32;
    while fill(seed).is_none() {
        seed = seed.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35e) | 1;
    }
    seed
}

const _: () = assert!(NAMES.len() < 128, "a set of names is a u128");
const _: () = {
    let mut index = 0;
    while index < NAMES.len() {
        assert!(NAMES[index].len() <= NAME_BYTES_MAX && NAMES[index].len() >= NAME_BYTES_MIN);
        index += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for (index, name) in NAMES.iter().enumerate() {
            assert_eq!(Known::of(name.as_bytes()), VARIANTS[index]);
            assert_eq!(Known::of(name.to_uppercase().as_bytes()), VARIANTS[index]);
            assert_eq!(Known::of(name.to_lowercase().as_bytes()), VARIANTS[index]);
            assert_eq!(VARIANTS[index].name(), *name);
        }
    }

    #[test]
    fn every_byte_counts() {
        for name in NAMES {
            for at in 0..name.len() {
                for byte in 0..=u8::MAX {
                    let mut other = name.as_bytes().to_vec();
                    other[at] = byte;
                    let is_same = other.eq_ignore_ascii_case(name.as_bytes());
                    assert_eq!(Known::of(&other) == Known::of(name.as_bytes()), is_same, "{name} {at} {byte}");
                }
            }
        }
    }

    #[test]
    fn lookalikes_are_other() {
        for name in ["", "h", "hos", "hostt", "Host ", "Content_Length", "x-forwarded-fo", "Transfer-Encodinh"] {
            assert_eq!(Known::of(name.as_bytes()), Known::Other, "{name:?}");
        }
        assert_eq!(Known::of(&[b'a'; 100]), Known::Other);
        assert_eq!(Known::Other.name(), "");
    }
}
