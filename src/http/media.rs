//! HOT: no allocation, no formatting.
//! Questions about Content-Type values. Case never counts.

/// Room for a content type with the charset that it needs.
pub const CHARSET_ROOM_BYTES: usize = 64;
const CHARSET: &[u8] = b"; charset=UTF-8";

/// The content type of a response as Kong sends it, with `; charset=UTF-8` behind a text type that stands alone
/// (spec/proxying.md section 5). `None`: it goes out as it is.
pub fn with_charset<'a>(content_type: &[u8], room: &'a mut [u8; CHARSET_ROOM_BYTES]) -> Option<&'a [u8]> {
    if !needs_charset(content_type) {
        return None;
    }
    let (front, rest) = room.split_at_mut_checked(content_type.len())?;
    front.copy_from_slice(content_type);
    rest.get_mut(..CHARSET.len())?.copy_from_slice(CHARSET);
    room.get(..content_type.len() + CHARSET.len())
}

fn needs_charset(content_type: &[u8]) -> bool {
    const TYPES: [&[u8]; 6] = [
        b"text/html",
        b"text/plain",
        b"text/xml",
        b"application/javascript",
        b"application/rss+xml",
        b"text/vnd.wap.wml",
    ];
    TYPES.iter().any(|text| text.eq_ignore_ascii_case(content_type))
}

/// Whether a value begins with `application/grpc`, which stands for all its variants.
pub fn is_grpc(value: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    value.get(..GRPC.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}

/// Whether one of the types of a value is JSON, or a format that is written in JSON.
pub fn is_json(value: &[u8]) -> bool {
    const PREFIX: &[u8] = b"application/";
    value.split(|&byte| byte == b',').any(|one| {
        let bare = one.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        let (prefix, subtype) = bare.split_at_checked(PREFIX.len()).unwrap_or_default();
        let ends_in_json = subtype.len().checked_sub(4).and_then(|at| subtype.split_at_checked(at));
        prefix.eq_ignore_ascii_case(PREFIX)
            && ends_in_json.is_some_and(|(before, json)| {
                json.eq_ignore_ascii_case(b"json")
                    && (before.is_empty() || (before.ends_with(b"+") && before.len() > 1))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_text_types_get_a_charset() {
        let mut room = [0; CHARSET_ROOM_BYTES];
        for (text, want) in [
            ("Text/HTML", "Text/HTML; charset=UTF-8"),
            ("application/javascript", "application/javascript; charset=UTF-8"),
        ] {
            assert_eq!(with_charset(text.as_bytes(), &mut room), Some(want.as_bytes()));
        }
        for other in ["text/html; charset=x", "text/css", "application/json", "", "text/htm"] {
            assert_eq!(with_charset(other.as_bytes(), &mut room), None, "{other}");
        }
    }

    #[test]
    fn json_has_variants() {
        for json in
            ["application/json", "Application/JSON; charset=x", "application/problem+json", "text/x, application/json"]
        {
            assert!(is_json(json.as_bytes()), "{json}");
        }
        for other in ["", "text/json", "application/+json", "application/jsonp", "application/xjson", "json"] {
            assert!(!is_json(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn grpc_has_variants() {
        assert!(is_grpc(b"application/grpc") && is_grpc(b"Application/gRPC+proto"));
        assert!(!is_grpc(b"application/grp") && !is_grpc(b"text/grpc"));
    }
}
