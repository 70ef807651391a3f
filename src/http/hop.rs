//! HOT: no allocation after warm-up, no formatting.
//! Fields that belong to one connection and do not travel (requirements 1.7; spec/proxying.md sections 2 and 5).
//! Owns: what is removed, both ways, also on an upgrade. Never: adds Connection or Upgrade; who writes the head does.
//! Always: Host, framing and the gateway's own fields cannot be named away in Connection.

use crate::http::fields::{Field, Fields, tokens};
use crate::http::head::{Method, RequestHead, Version};
use crate::http::known::Known;
use crate::http::known::bits;

/// Makes the fields of a client's request fit to be sent upstream. What was asked of this connection (`keep_alive`,
/// `expects_continue`, `accepts_trailers`) must be read before. TE stays as `trailers` if the
/// client's first TE line lists it. Content-Length stays; the framing sent is the caller's.
pub fn strip_request(fields: &mut Fields, src: &[u8]) {
    fields.remove_listed(src, Known::Connection, is_protected);
    const UNWANTED: u128 = bits(&[
        Known::Connection,
        Known::KeepAlive,
        Known::Expect,
        Known::Proxy,
        Known::ProxyConnection,
        Known::TransferEncoding,
        Known::Upgrade,
        Known::Http2Settings,
        Known::XKongRequestDebug,
        Known::XKongRequestDebugLog,
        Known::XKongRequestDebugToken,
    ]);
    fields.remove_all(UNWANTED);
    if accepts_trailers(fields, src) {
        fields.set(Known::Te, b"trailers");
    } else {
        fields.remove(Known::Te);
    }
}

/// Makes the fields of an upstream's response fit to be sent to the client. `upgrade` is the protocol that was asked
/// of the upstream, if any: the same name in Upgrade stays. `trailers` says whether the client accepts trailers.
pub fn strip_response(fields: &mut Fields, src: &[u8], upgrade: Option<&[u8]>, trailers: bool) {
    fields.remove_listed(src, Known::Connection, |known| {
        is_protected(known) || matches!(known, Known::Upgrade | Known::KeepAlive)
    });
    const UNWANTED: u128 =
        bits(&[Known::Connection, Known::KeepAlive, Known::ProxyConnection, Known::TransferEncoding]);
    let same_upgrade = match (upgrade, fields.get(src, Known::Upgrade)) {
        (Some(asked), Some(given)) => given.eq_ignore_ascii_case(asked),
        _ => false,
    };
    let unwanted_upgrade = if same_upgrade { 0 } else { Known::Upgrade.bit() };
    let unwanted_trailer = if trailers { 0 } else { Known::Trailer.bit() };
    fields.remove_all(UNWANTED | unwanted_upgrade | unwanted_trailer);
    if fields.iter(src).any(|field| is_accelerator(&field)) {
        fields.retain(src, |field| !is_accelerator(&field));
    }
}

/// The one protocol that a connection may be switched to.
pub const WEBSOCKET: &[u8] = b"websocket";

/// Whether the request is the opening handshake of a WebSocket (RFC 6455 section 4.1), as far as a gateway must know: it may
/// only then ask the upstream to switch protocols. Of what belongs to the two ends alone (the values of key, version and
/// extensions) nothing is judged.
pub fn opens_websocket(head: &RequestHead, src: &[u8]) -> bool {
    let fields = &head.fields;
    head.method == Method::Get
        && head.version == Version::Http11
        && asks_for_websocket(fields, src)
        && fields.count(Known::SecWebsocketKey) == 1
        && fields.count(Known::SecWebsocketVersion) == 1
        && !fields.has(Known::ContentLength)
        && !fields.has(Known::TransferEncoding)
}

/// Whether a response with status 101 switches to the WebSocket that was asked for.
pub fn accepts_websocket(fields: &Fields, src: &[u8]) -> bool {
    asks_for_websocket(fields, src) && !fields.has(Known::ContentLength) && !fields.has(Known::TransferEncoding)
}

/// `Upgrade` names the WebSocket and nothing else, and `Connection` names `Upgrade`.
fn asks_for_websocket(fields: &Fields, src: &[u8]) -> bool {
    fields.count(Known::Upgrade) == 1
        && fields.get(src, Known::Upgrade).is_some_and(|value| value.eq_ignore_ascii_case(WEBSOCKET))
        && fields.values(src, Known::Connection).flat_map(tokens).any(|token| token.eq_ignore_ascii_case(b"upgrade"))
}

/// Whether the first TE line lists exactly `trailers`.
pub fn accepts_trailers(fields: &Fields, src: &[u8]) -> bool {
    fields.get(src, Known::Te).is_some_and(|value| tokens(value).any(|token| token.eq_ignore_ascii_case(b"trailers")))
}

/// The Max-Forwards of an OPTIONS request (RFC 9110 section 7.6.2): at 0 the gateway answers itself, else it sends
/// one less. `None` without one, or with one that is not a number, which is ignored.
pub fn max_forwards(head: &RequestHead, src: &[u8]) -> Option<u64> {
    let digits = head.fields.get(src, Known::MaxForwards)?;
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, byte| match byte {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// Fields that a peer must not be able to remove by naming them: they route, delimit or identify.
fn is_protected(known: Known) -> bool {
    matches!(
        known,
        Known::Host
            | Known::ContentLength
            | Known::TransferEncoding
            | Known::Te
            | Known::Via
            | Known::Forwarded
            | Known::XForwardedFor
            | Known::XForwardedProto
            | Known::XForwardedHost
            | Known::XForwardedPort
            | Known::XForwardedPath
            | Known::XForwardedPrefix
            | Known::XRealIp
            | Known::XKongRequestId
            | Known::XConsumerId
            | Known::XConsumerCustomId
            | Known::XConsumerUsername
            | Known::XConsumerGroups
            | Known::XAuthenticatedGroups
            | Known::XCredentialIdentifier
            | Known::XAnonymousConsumer
    )
}

/// Orders to the proxy in front (`X-Accel-Redirect` and others): not obeyed, and not the client's to see.
fn is_accelerator(field: &Field<'_>) -> bool {
    const PREFIX: &[u8] = b"x-accel-";
    field.known == Known::Other
        && field.name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::ResponseHead;
    use crate::http::parse::{HeadLimits, parse_request, parse_response};

    fn shown(fields: &Fields, src: &[u8]) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields.iter(src).map(|field| format!("{}:{} ", text(field.name), text(field.value))).collect()
    }

    fn request(fields: &str) -> (RequestHead, Vec<u8>) {
        let text = format!("OPTIONS / HTTP/1.1\r\n{fields}\r\n").into_bytes();
        let mut head = RequestHead::default();
        parse_request(&text, &HeadLimits::REQUEST, &mut head).unwrap();
        (head, text)
    }

    #[test]
    fn what_belongs_to_the_client_connection_stays_there() {
        let table = [
            (
                "Keep-Alive: timeout=5\r\nProxy-Connection: x\r\nTE: trailers\r\nTrailer: X-T\r\nProxy-Authorization: x\r\n",
                "TE:trailers Trailer:X-T Proxy-Authorization:x ",
            ),
            ("TE: gzip\r\n", ""),
            ("TE: gzip, Trailers;q=1\r\n", ""),
            ("TE: gzip, TRAILERS\r\nTE: x\r\n", "TE:trailers "),
            ("TE: gzip\r\nTE: trailers\r\n", ""),
            ("Connection: TE, close\r\nTE: trailers\r\n", "TE:trailers "),
            ("Connection: keep-alive, X-Foo\r\nX-Foo: bar\r\nA: b\r\n", "A:b "),
            ("Connection: X-Foo\r\nConnection: Y\r\nX-Foo: bar\r\ny: b\r\nx-foo: c\r\n", ""),
            ("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n", ""),
            ("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", "Sec-WebSocket-Version:13 "),
            ("Expect: 100-continue\r\nProxy: evil\r\nTransfer-Encoding: chunked\r\n", ""),
            (
                "Connection: Host, Content-Length, X-Forwarded-For, X-Real-IP, Via, X-Consumer-ID\r\nHost: h\r\n\
              Content-Length: 1\r\nX-Forwarded-For: f\r\nX-Real-IP: r\r\nVia: v\r\nX-Consumer-ID: c\r\n",
                "Host:h Content-Length:1 X-Forwarded-For:f X-Real-IP:r Via:v X-Consumer-ID:c ",
            ),
            ("X-Kong-Request-Debug: *\r\nX-Kong-Request-Debug-Log: true\r\nX-Kong-Request-Debug-Token: t\r\n", ""),
            ("a_b: c\r\nX-Dup: 1\r\nx-dup: 2\r\n", "a_b:c X-Dup:1 x-dup:2 "),
        ];
        for (fields, want) in table {
            let (mut head, text) = request(fields);
            strip_request(&mut head.fields, &text);
            assert_eq!(shown(&head.fields, &text), want, "{fields:?}");
        }
    }

    #[test]
    fn what_belongs_to_the_upstream_connection_stays_there() {
        let table: [(&str, Option<&[u8]>, bool, &str); 9] = [
            ("Connection: close\r\nServer: s\r\n", None, false, "Server:s "),
            ("Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nA: b\r\n", None, false, "A:b "),
            ("Connection: Content-Length\r\nContent-Length: 3\r\n", None, false, "Content-Length:3 "),
            ("Transfer-Encoding: chunked\r\nA: b\r\n", None, false, "A:b "),
            ("Trailer: X\r\n", None, false, ""),
            ("Trailer: X\r\n", None, true, "Trailer:X "),
            ("Connection: upgrade\r\nUpgrade: WebSocket\r\n", Some(b"websocket"), false, "Upgrade:WebSocket "),
            ("Upgrade: h2c\r\n", None, false, ""),
            (
                "X-Accel-Redirect: /z\r\nx-accel-buffering: no\r\nX-Accelerate: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n",
                None,
                false,
                "X-Accelerate:1 Set-Cookie:a Set-Cookie:b ",
            ),
        ];
        for (fields, upgrade, trailers, want) in table {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes();
            let mut head = ResponseHead::default();
            parse_response(&text, &HeadLimits::RESPONSE, &mut head).unwrap();
            strip_response(&mut head.fields, &text, upgrade, trailers);
            assert_eq!(shown(&head.fields, &text), want, "{fields:?}");
        }
    }

    #[test]
    fn only_a_whole_handshake_opens_a_websocket() {
        const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
        let opens = |line: &str, fields: &str| {
            let text = format!("{line}\r\n{fields}\r\n").into_bytes();
            let mut head = RequestHead::default();
            parse_request(&text, &HeadLimits::REQUEST, &mut head).unwrap();
            opens_websocket(&head, &text)
        };
        let get = "GET / HTTP/1.1";
        for (line, fields, want) in [
            (get, format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{KEY}"), true),
            (get, format!("Connection: keep-alive\r\nConnection: x, upgrade\r\nUPGRADE: WebSocket\r\n{KEY}"), true),
            (get, format!("Upgrade: websocket\r\n{KEY}"), false),
            (get, format!("Connection: Upgrade\r\n{KEY}"), false),
            (get, format!("Connection: Upgrade\r\nUpgrade: h2c\r\n{KEY}"), false),
            (get, format!("Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n{KEY}"), false),
            (get, format!("Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n{KEY}"), false),
            (get, "Connection: Upgrade\r\nUpgrade: websocket\r\n".to_owned(), false),
            (get, format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{KEY}{KEY}"), false),
            (get, format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{KEY}Content-Length: 1\r\n"), false),
            ("POST / HTTP/1.1", format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{KEY}"), false),
            ("GET / HTTP/1.0", format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{KEY}"), false),
        ] {
            assert_eq!(opens(line, &fields), want, "{line} {fields:?}");
        }
    }

    #[test]
    fn max_forwards_is_a_number_or_ignored() {
        for (value, want) in [
            ("0", Some(0)),
            ("17", Some(17)),
            ("", None),
            ("x", None),
            ("-1", None),
            ("1e3", None),
            ("99999999999999999999", None),
        ] {
            let (head, text) = request(&format!("Max-Forwards: {value}\r\n"));
            assert_eq!(max_forwards(&head, &text), want, "{value}");
        }
    }
}
