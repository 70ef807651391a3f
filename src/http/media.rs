//! HOT: no allocation, no formatting.
//! Questions about Content-Type values. Case never counts.

/// Whether Kong would append `; charset=UTF-8` to this content type of a response: a text type that stands alone
/// (spec/proxying.md section 5).
pub fn needs_charset(content_type: &[u8]) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_text_types_need_a_charset() {
        assert!(needs_charset(b"Text/HTML") && needs_charset(b"application/javascript"));
        for other in ["text/html; charset=x", "text/css", "application/json", "", "text/htm"] {
            assert!(!needs_charset(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn grpc_has_variants() {
        assert!(is_grpc(b"application/grpc") && is_grpc(b"Application/gRPC+proto"));
        assert!(!is_grpc(b"application/grp") && !is_grpc(b"text/grpc"));
    }
}
