//! Paths as services and routes declare them (spec/entities.md section 1.2).
//! Owns: percent triplets, the normal form of a route's prefix path, whether a regex path compiles.

use regex::Regex;

/// The rules of *path* that are not said by the declaration: RFC 3986 characters, percent triplets.
pub fn check_path(text: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
    if !text.bytes().all(allowed) {
        return Err(format!("invalid path: '{text}' (characters outside of the reserved list of RFC 3986 found)"));
    }
    check_triplets(text)
}

/// The rules of *router path* that are not said by the declaration.
pub fn check_router_path(text: &str) -> Result<(), String> {
    if let Some(regex) = text.strip_prefix('~') {
        // The crate reads PCRE's syntax, named groups included; what it lacks (look-around, back references) is refused
        // with a reason, since it would cost time without bound on a hostile path.
        return match Regex::new(regex) {
            Ok(_) => Ok(()),
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string();
                Err(format!("invalid regex: '{regex}' (PCRE returned: {reason})"))
            }
        };
    }
    check_triplets(text)?;
    let normal = normalise(text);
    if normal == text { Ok(()) } else { Err(format!("non-normalized path, consider use '{normal}' instead")) }
}

fn check_triplets(text: &str) -> Result<(), String> {
    let bytes = text.as_bytes();
    for (at, _) in text.match_indices('%') {
        let triplet = &bytes[at..bytes.len().min(at + 3)];
        if triplet.len() < 3 || !triplet[1..].iter().all(u8::is_ascii_hexdigit) {
            return Err(format!("invalid url-encoded value: '{}'", String::from_utf8_lossy(triplet)));
        }
    }
    Ok(())
}

/// Decodes triplets of unreserved characters, spaces and UTF-8, upper-cases the others, removes dot segments.
pub fn normalise(text: &str) -> String {
    remove_dot_segments(&decode_unreserved(text))
}

/// Decodes triplets of unreserved characters, spaces and UTF-8, upper-cases the others.
pub fn decode_unreserved(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out: Vec<u8> = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |index: usize| bytes.get(index).and_then(|byte| (*byte as char).to_digit(16));
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                let byte = (high * 16 + low) as u8;
                if byte.is_ascii_alphanumeric() || b"-._~ ".contains(&byte) || byte >= 0x80 {
                    out.push(byte);
                } else {
                    out.extend(format!("%{byte:02X}").bytes());
                }
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    // Triplets that do not make up UTF-8 stay as they were: there is nothing better to suggest.
    String::from_utf8(out).unwrap_or_else(|_| text.to_string())
}

fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (index, segment) in segments.iter().enumerate() {
        let last = index + 1 == segments.len();
        match *segment {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop();
                if last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_paths_hold_rfc_3986_characters_and_whole_triplets() {
        let check = |text: &str, want: Result<(), &str>| assert_eq!(check_path(text), want.map_err(str::to_string));
        check("/a%20b/c?x=1#f", Ok(()));
        check("/a b", Err("invalid path: '/a b' (characters outside of the reserved list of RFC 3986 found)"));
        check("/a%zz", Err("invalid url-encoded value: '%zz'"));
        check("/a%2", Err("invalid url-encoded value: '%2'"));
    }

    #[test]
    fn route_prefixes_must_be_in_normal_form() {
        let check =
            |text: &str, want: Result<(), &str>| assert_eq!(check_router_path(text), want.map_err(str::to_string));
        for good in ["/", "/a/", "/a b", "/é", "/[0-9]+", "/a?b=1", "/a%2Fb", "/a%3Fb", "~/a%zz", "~/a/\\d+$"] {
            check(good, Ok(()));
        }
        check("/a%20b", Err("non-normalized path, consider use '/a b' instead"));
        check("/a/../b", Err("non-normalized path, consider use '/b' instead"));
        check("/./a", Err("non-normalized path, consider use '/a' instead"));
        check("/a%2f", Err("non-normalized path, consider use '/a%2F' instead"));
        check("/%41", Err("non-normalized path, consider use '/A' instead"));
        check("/a%zz", Err("invalid url-encoded value: '%zz'"));
    }

    #[test]
    fn regex_paths_must_compile() {
        assert_eq!(check_router_path("~/(?<user>[a-z]+)/\\/x"), Ok(()));
        let refused = check_router_path("~/a(").unwrap_err();
        assert!(refused.starts_with("invalid regex: '/a(' (PCRE returned: "), "{refused}");
    }
}
