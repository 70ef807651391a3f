//! Fuzz targets of the parsers: what must hold of any bytes.
//! Never: part of the product; built for tests and by cargo-fuzz (`fuzz/`) only.
//! Always: a target panics if and only if something that must hold does not.

use crate::http::chunked::BadChunk;
use crate::http::chunked::ChunkDecoder;
use crate::http::chunked::LAST_CHUNK;
use crate::http::chunked::push_chunk;
use crate::http::encode::CRLF;
use crate::http::encode::push_fields;
use crate::http::encode::push_request_line;
use crate::http::encode::push_status_line;
use crate::http::fields::Fields;
use crate::http::fields::is_token;
use crate::http::framing::keep_alive;
use crate::http::framing::request_framing;
use crate::http::framing::response_framing;
use crate::http::head::Method;
use crate::http::head::RequestHead;
use crate::http::head::ResponseHead;
use crate::http::hop;
use crate::http::host::host_of;
use crate::http::parse::BadHead;
use crate::http::parse::HeadLimits;
use crate::http::parse::Progress;
use crate::http::parse::has_end;
use crate::http::parse::parse_request;
use crate::http::parse::parse_response;
use crate::http::target::normalize_path;
use crate::http::target::split_target;
use crate::stdx::fuzzing::splits;

/// Everything a reader can see of a head, owned.
#[derive(Debug, PartialEq)]
struct Seen {
    /// Method and target, or status and reason.
    line: [Vec<u8>; 2],
    is_http11: bool,
    len: usize,
    fields: Vec<[Vec<u8>; 2]>,
}

fn owned(fields: &Fields, src: &[u8]) -> Vec<[Vec<u8>; 2]> {
    fields.iter(src).map(|field| [field.name.to_vec(), field.value.to_vec()]).collect()
}

fn seen_request(head: &RequestHead, src: &[u8]) -> Seen {
    let line = [head.method_span.of(src).to_vec(), head.target.of(src).to_vec()];
    let is_http11 = head.version == crate::http::head::Version::Http11;
    Seen { line, is_http11, len: head.len, fields: owned(&head.fields, src) }
}

fn seen_response(head: &ResponseHead, src: &[u8]) -> Seen {
    let line = [head.status.to_string().into_bytes(), head.reason.of(src).to_vec()];
    let is_http11 = head.version == crate::http::head::Version::Http11;
    Seen { line, is_http11, len: head.len, fields: owned(&head.fields, src) }
}

type Parsed = Result<Option<Seen>, BadHead>;

fn request_in_pieces(text: &[u8], ends: &[usize]) -> Parsed {
    let mut head = RequestHead::default();
    for &end in ends {
        if parse_request(&text[..end], &HeadLimits::REQUEST, &mut head)? == Progress::Complete {
            return Ok(Some(seen_request(&head, text)));
        }
    }
    Ok(None)
}

fn response_in_pieces(text: &[u8], ends: &[usize]) -> Parsed {
    let mut head = ResponseHead::default();
    for &end in ends {
        if parse_response(&text[..end], &HeadLimits::RESPONSE, &mut head)? == Progress::Complete {
            return Ok(Some(seen_response(&head, text)));
        }
    }
    Ok(None)
}

/// The same head, or the same refusal, however the text is cut. Without an end in sight the refusal may wait until the
/// bytes have doubled.
fn must_agree(text: &[u8], whole: &Parsed, in_pieces: impl Fn(&[usize]) -> Parsed) {
    for ends in splits(text) {
        match (whole, in_pieces(&ends)) {
            (Err(_), Ok(None)) => assert!(!has_end(text), "cut at {ends:?} it is not refused"),
            (whole, pieces) => assert_eq!(whole, &pieces, "cut at {ends:?}"),
        }
    }
}

/// What is sent on can be read in one way only.
fn must_be_clean(seen: &Seen) {
    for [name, value] in &seen.fields {
        assert!(is_token(name), "the name {}", name.escape_ascii());
        let is_clean = value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
        assert!(is_clean && value.trim_ascii() == value.as_slice(), "the value {}", value.escape_ascii());
    }
    // A reason may hold tabs.
    let is_control = |byte: &u8| matches!(byte, 0..=8 | 10..=0x1f | 0x7f);
    assert!(!seen.line.iter().flatten().any(is_control), "{:?}", seen.line);
}

/// Any bytes as the head of a request.
pub fn request_head(text: &[u8]) {
    let whole = request_in_pieces(text, &[text.len()]);
    must_agree(text, &whole, |ends| request_in_pieces(text, ends));
    let Ok(Some(seen)) = whole else { return };
    must_be_clean(&seen);
    assert!(seen.len <= text.len());
    let mut head = RequestHead::default();
    assert_eq!(parse_request(text, &HeadLimits::REQUEST, &mut head), Ok(Progress::Complete));
    let mut again = Vec::new();
    push_request_line(&mut again, &seen.line[0], |out| out.extend_from_slice(&seen.line[1]));
    push_fields(&mut again, &head.fields, text, |_| true);
    again.extend_from_slice(CRLF);
    // Written anew it may be longer by the spaces behind colons; then only its limits can refuse it.
    match request_in_pieces(&again, &[again.len()]) {
        Ok(read) => assert_eq!(read.map(|read| (read.line, read.fields)), Some((seen.line, seen.fields))),
        Err(bad) => assert!(matches!(bad, BadHead::HeadTooLong | BadHead::FieldTooLong), "{bad:?}"),
    }
    let _ = request_framing(&head, text);
    let _ = keep_alive(head.version, &head.fields, text);
    if let Ok(target) = split_target(head.target.of(text), head.method) {
        let _ = host_of(&head, text, &target);
    }
    hop::strip_request(&mut head.fields, text);
    must_be_clean(&Seen { fields: owned(&head.fields, text), ..seen_request(&head, text) });
}

/// Any bytes as the head of a response.
pub fn response_head(text: &[u8]) {
    let whole = response_in_pieces(text, &[text.len()]);
    must_agree(text, &whole, |ends| response_in_pieces(text, ends));
    let Ok(Some(seen)) = whole else { return };
    must_be_clean(&seen);
    let mut head = ResponseHead::default();
    assert_eq!(parse_response(text, &HeadLimits::RESPONSE, &mut head), Ok(Progress::Complete));
    assert!(head.status >= 100 && head.status <= 999);
    let mut again = Vec::new();
    push_status_line(&mut again, head.status, head.reason.of(text));
    push_fields(&mut again, &head.fields, text, |_| true);
    again.extend_from_slice(CRLF);
    match response_in_pieces(&again, &[again.len()]) {
        Ok(read) => assert_eq!(read.map(|read| read.fields), Some(seen.fields)),
        Err(bad) => assert!(matches!(bad, BadHead::HeadTooLong | BadHead::FieldTooLong), "{bad:?}"),
    }
    for to_head in [false, true] {
        let _ = response_framing(&head, text, to_head);
    }
    hop::strip_response(&mut head.fields, text, Some(b"websocket"), false);
    must_be_clean(&Seen { fields: owned(&head.fields, text), ..seen_response(&head, text) });
}

/// Data, bytes consumed and whether the body ended.
type Decoded = Result<(Vec<u8>, usize, bool), BadChunk>;

fn decoded(text: &[u8], ends: &[usize]) -> Decoded {
    let (mut decoder, mut data, mut consumed) = (ChunkDecoder::new(), Vec::new(), 0);
    for &end in ends {
        while consumed < end && !decoder.is_finished() {
            let found = decoder.feed(&text[consumed..end])?;
            data.extend_from_slice(&text[consumed + found.data.start..consumed + found.data.end]);
            consumed += found.consumed;
        }
    }
    Ok((data, consumed, decoder.is_finished()))
}

fn decoded_in_place(text: &[u8], ends: &[usize]) -> Decoded {
    let (mut decoder, mut data, mut from, mut consumed) = (ChunkDecoder::new(), Vec::new(), 0, 0);
    for &end in ends {
        let mut piece = text[from..end].to_vec();
        let found = decoder.decode_in_place(&mut piece)?;
        data.extend_from_slice(&piece[..found.data_len]);
        assert_eq!(piece[found.consumed..], text[from + found.consumed..end], "bytes behind the body are not touched");
        (from, consumed) = (end, consumed + found.consumed);
    }
    Ok((data, consumed, decoder.is_finished()))
}

/// Any bytes as a chunked body.
pub fn chunked(text: &[u8]) {
    let whole = decoded(text, &[text.len()]);
    assert_eq!(decoded_in_place(text, &[text.len()]), whole);
    for ends in splits(text) {
        assert_eq!(decoded(text, &ends), whole, "cut at {ends:?}");
        assert_eq!(decoded_in_place(text, &ends), whole, "in place, cut at {ends:?}");
    }
    let Ok((data, consumed, finished)) = whole else { return };
    assert!(consumed == text.len() || finished, "{consumed} bytes were read, and more wanted");
    if finished {
        let mut again = Vec::new();
        data.chunks(100).for_each(|piece| push_chunk(&mut again, piece));
        again.extend_from_slice(LAST_CHUNK);
        assert_eq!(decoded(&again, &[again.len()]), Ok((data, again.len(), true)));
    }
}

/// Any bytes as the target of a request, and so its path.
pub fn path(raw: &[u8]) {
    let Ok(target) = split_target(raw, Method::Get) else { return };
    let raw = target.path;
    let mut out = Vec::new();
    let normal = normalize_path(raw, &mut out).ok().map(<[u8]>::to_vec);
    assert_eq!(normal, stupid_twin(raw), "the normal form of {}", raw.escape_ascii());
    let Some(normal) = normal else { return };
    assert!(normal.starts_with(b"/") && !normal.contains(&0), "{}", normal.escape_ascii());
    assert!(!normal.windows(2).any(|pair| pair == b"//"), "{}", normal.escape_ascii());
    assert!(!normal.split(|&byte| byte == b'/').any(|segment| matches!(segment, b"." | b"..")));
}

/// Decodes first, then walks whole segments.
fn stupid_twin(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.first() != Some(&b'/') {
        return None;
    }
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < raw.len() {
        if raw[at] != b'%' {
            decoded.push(raw[at]);
            at += 1;
            continue;
        }
        let digits = std::str::from_utf8(raw.get(at + 1..at + 3)?).ok()?;
        if digits.contains(['+', '-']) {
            return None;
        }
        let byte = u8::from_str_radix(digits, 16).ok()?;
        if byte == 0 {
            return None;
        }
        if b"!*'();:@&=+$,/?%#[]".contains(&byte) {
            decoded.extend_from_slice(format!("%{}", digits.to_uppercase()).as_bytes());
        } else {
            decoded.push(byte);
        }
        at += 3;
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    let segments: Vec<&[u8]> = decoded.split(|&byte| byte == b'/').skip(1).filter(|s| !s.is_empty()).collect();
    for segment in &segments {
        match *segment {
            b"." => {}
            b".." => drop(kept.pop()?),
            other => kept.push(other),
        }
    }
    let last = decoded.rsplit(|&byte| byte == b'/').next().unwrap_or(&[]);
    let open = !matches!(last, b"" | b"." | b"..");
    let mut path = b"/".to_vec();
    path.extend_from_slice(&kept.join(&b'/'));
    if !open && path.len() > 1 {
        path.push(b'/');
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::fuzzing::check;

    const WORDS: &[&str] = &[
        "\r\n",
        "\n",
        "\r",
        "\0",
        ":",
        " ",
        "\t",
        "\r\n\r\n",
        "HTTP/1.1",
        "Host: a\r\n",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close, X\r\n",
        "X: y\r\n",
        ",",
        "chunked",
    ];

    #[test]
    fn request_heads_are_read_alike_however_they_are_cut() {
        check("request_head", WORDS, 4000, request_head);
    }

    #[test]
    fn response_heads_are_read_alike_however_they_are_cut() {
        check("response_head", WORDS, 4000, response_head);
    }

    #[test]
    fn chunked_bodies_are_read_alike_however_they_are_cut() {
        check("chunked", &["\r\n", "0\r\n\r\n", "1\r\nx\r\n", ";a=\"b\"", "ffff", "A: b\r\n", "\n"], 6000, chunked);
    }

    #[test]
    fn paths_have_the_normal_form_that_a_stupid_twin_finds() {
        let words =
            ["/", ".", "..", "/.", "/../", "//", "%2e", "%2F", "%41", "%25", "%c3", "%", "%0", "%00", "?", "\\"];
        check("path", &words, 30_000, path);
    }
}
