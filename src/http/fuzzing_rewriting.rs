//! Fuzz target of what is written anew: the head that goes upstream, and the fields that go back to the client.
//! Never: part of the product; built for tests and by cargo-fuzz (`fuzz/`) only.
//! Always: the target panics if and only if what leaves could be read in another way than what came, or says what a peer
//! may not say.

use crate::http::encode::CRLF;
use crate::http::encode::push_fields;
use crate::http::encode::push_status_line;
use crate::http::fields::Fields;
use crate::http::fields::tokens;
use crate::http::framing::Framing;
use crate::http::framing::request_framing;
use crate::http::framing::response_framing;
use crate::http::head::RequestHead;
use crate::http::head::ResponseHead;
use crate::http::hop;
use crate::http::host::host_of;
use crate::http::known::Known;
use crate::http::parse::BadHead;
use crate::http::parse::HeadLimits;
use crate::http::parse::Progress;
use crate::http::parse::parse_request;
use crate::http::parse::parse_response;
use crate::http::target::normalize_path;
use crate::http::target::split_target;
use crate::http::upstream_head::SentBody;
use crate::http::upstream_head::UpstreamHead;
use crate::http::upstream_head::UpstreamName;
use crate::http::upstream_path::PathHandling;
use crate::http::upstream_path::UpstreamPath;

const PEER: [u8; 4] = [192, 0, 2, 1];
const CLIENT: [u8; 4] = [198, 51, 100, 7];
const ID: &[u8] = b"0123456789abcdef0123456789abcdef";

/// Any bytes as the head of a request, or of a response, on its way through.
pub fn rewriting(text: &[u8]) {
    request(text, false);
    request(text, true);
    response(text);
}

fn request(text: &[u8], trusted: bool) {
    let mut head = RequestHead::default();
    if parse_request(text, &HeadLimits::REQUEST, &mut head) != Ok(Progress::Complete) {
        return;
    }
    let (Ok(framing), Ok(target)) = (request_framing(&head, text), split_target(head.target.of(text), head.method))
    else {
        return;
    };
    let mut normal = Vec::new();
    let Ok(path) = normalize_path(target.path, &mut normal) else { return };
    let Ok(host) = host_of(&head, text, &target) else { return };
    let host = host.map(|host| (host.text.to_vec(), host.name.to_vec()));
    let travel = travelling(&head.fields, text, is_of_the_hop);
    let believed = |known, ours: &str| match head.fields.get(text, known).filter(|_| trusted) {
        Some(value) => value.to_vec(),
        None => ours.as_bytes().to_vec(),
    };
    let own_host = host.as_ref().map_or("kong".to_owned(), |(_, name)| String::from_utf8_lossy(name).to_lowercase());
    let forwarded = [
        (Known::XForwardedProto, believed(Known::XForwardedProto, "http")),
        (Known::XForwardedHost, believed(Known::XForwardedHost, &own_host)),
        (Known::XForwardedPort, believed(Known::XForwardedPort, "8000")),
        (Known::XForwardedPath, believed(Known::XForwardedPath, &String::from_utf8_lossy(target.path))),
        (Known::XRealIp, b"198.51.100.7".to_vec()),
        (Known::XKongRequestId, ID.to_vec()),
        (Known::Host, host.as_ref().map_or(b"up.test:81".to_vec(), |(text, _)| text.clone())),
    ];
    let said_for = head.fields.get(text, Known::XForwardedFor).map(<[u8]>::to_vec);
    hop::strip_request(&mut head.fields, text);
    let body = match framing {
        Framing::Empty => SentBody::None,
        Framing::Length(bytes) => SentBody::Length(bytes),
        Framing::Chunked => SentBody::Chunked,
    };
    let mut out = Vec::new();
    let sent = UpstreamHead {
        method: head.method_span.of(text),
        version: head.version,
        fields: &head.fields,
        src: text,
        target: UpstreamPath {
            base: b"/",
            path,
            matched_len: None,
            strip: false,
            handling: PathHandling::V0,
            query: target.query,
            replacement: None,
        },
        raw_path: target.path,
        host: host.as_ref().map(|(text, name)| (text.as_slice(), name.as_slice())),
        keeps_host: true,
        upstream: UpstreamName { host: "up.test", port: 81, host_header: None },
        host_replacement: None,
        opens_websocket: false,
        https: false,
        trusted,
        peer_ip: PEER.into(),
        client_ip: CLIENT.into(),
        port: 8000,
        request_id: Some(ID),
        body,
    };
    sent.write(&mut out);
    let mut read = RequestHead::default();
    match parse_request(&out, &HeadLimits::REQUEST, &mut read) {
        Ok(progress) => assert_eq!(progress, Progress::Complete, "{}", out.escape_ascii()),
        // It is longer by what we add.
        Err(bad) => {
            use BadHead::{FieldTooLong, HeadTooLong, LineTooLong, TooManyFields};
            let is_limit = matches!(bad, HeadTooLong | FieldTooLong | LineTooLong | TooManyFields);
            return assert!(is_limit, "{bad:?}: {}", out.escape_ascii());
        }
    }
    assert_eq!(read.len, out.len(), "there is nothing behind the head: {}", out.escape_ascii());
    assert_eq!(request_framing(&read, &out), Ok(framing), "{}", out.escape_ascii());
    let again = split_target(read.target.of(&out), read.method).expect("a target of ours");
    let mut out_normal = Vec::new();
    assert_eq!(normalize_path(again.path, &mut out_normal), Ok(path), "{}", out.escape_ascii());
    assert_eq!(again.query, target.query);
    for (known, want) in forwarded {
        let values: Vec<&[u8]> = read.fields.values(&out, known).collect();
        assert_eq!(values, [want.as_slice()], "{known:?}: {}", out.escape_ascii());
    }
    let chain = read.fields.get(&out, Known::XForwardedFor).expect("always sent");
    let want = match said_for {
        Some(before) if !before.is_empty() => [&before, &b", 192.0.2.1"[..]].concat(),
        Some(_) => b"192.0.2.1".to_vec(),
        None => b"198.51.100.7".to_vec(),
    };
    assert_eq!((chain, read.fields.count(Known::XForwardedFor)), (want.as_slice(), 1));
    let connection: Vec<&[u8]> = read.fields.values(&out, Known::Connection).collect();
    assert_eq!(connection, [b"keep-alive"], "{}", out.escape_ascii());
    let arrived: Vec<_> = plain(&read.fields, &out);
    assert_eq!(arrived, travel, "{}", out.escape_ascii());
}

fn response(text: &[u8]) {
    let mut head = ResponseHead::default();
    if parse_response(text, &HeadLimits::RESPONSE, &mut head) != Ok(Progress::Complete) {
        return;
    }
    let Ok(_) = response_framing(&head, text, false) else { return };
    let travel = travelling(&head.fields, text, |name| is_of_the_hop(name) || starts_with(name, b"x-accel-"));
    let length = head.fields.count(Known::ContentLength);
    hop::strip_response(&mut head.fields, text, None, false);
    let mut out = Vec::new();
    push_status_line(&mut out, head.status, head.reason.of(text));
    push_fields(&mut out, &head.fields, text, |_| true);
    out.extend_from_slice(CRLF);
    let mut read = ResponseHead::default();
    match parse_response(&out, &HeadLimits::RESPONSE, &mut read) {
        Ok(progress) => assert_eq!(progress, Progress::Complete, "{}", out.escape_ascii()),
        Err(bad) => return assert!(matches!(bad, BadHead::HeadTooLong | BadHead::FieldTooLong), "{bad:?}"),
    }
    assert_eq!((read.len, read.status), (out.len(), head.status));
    assert_eq!(read.fields.count(Known::ContentLength), length, "it cannot be named away");
    assert!(!read.fields.has(Known::Connection) && !read.fields.has(Known::TransferEncoding));
    assert_eq!(plain(&read.fields, &out), travel, "{}", out.escape_ascii());
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The fields without a meaning to the gateway, in order.
fn plain(fields: &Fields, src: &[u8]) -> Pairs {
    let all = fields.iter(src).filter(|field| field.known == Known::Other);
    all.map(|field| (field.name.to_vec(), field.value.to_vec())).collect()
}

/// Those of them that are neither named in Connection nor dropped for what they are.
fn travelling(fields: &Fields, src: &[u8], dropped: fn(&[u8]) -> bool) -> Pairs {
    let named: Vec<Vec<u8>> = fields.values(src, Known::Connection).flat_map(tokens).map(<[u8]>::to_vec).collect();
    let stays = |name: &[u8]| named.iter().any(|other| other.eq_ignore_ascii_case(name));
    plain(fields, src).into_iter().filter(|(name, _)| !stays(name) && !dropped(name)).collect()
}

/// None of these is among the plain fields as long as the table of names knows them.
fn is_of_the_hop(name: &[u8]) -> bool {
    [&b"connection"[..], b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade", b"http2-settings"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(name))
}

fn starts_with(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::fuzzing::check;

    #[test]
    fn what_leaves_is_read_as_what_came_and_says_nothing_that_a_peer_may_not_say() {
        let words = [
            "\r\n",
            "Connection: ",
            "Host",
            ", X-Hop",
            "X-Hop: 1\r\n",
            "X-Forwarded-For: 1\r\n",
            "X-Real-IP: 1\r\n",
            "Content-Length: 3\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Upgrade: h2c\r\n",
            "%2e",
            "%2F",
            "%3F",
            "?",
            "//",
            "\t",
            ": ",
        ];
        check("rewriting", &words, 6000, rewriting);
    }
}
