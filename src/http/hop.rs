//! HOT: no allocation after warm-up, no formatting.
//! Fields that belong to one connection and do not travel (requirements 1.7; spec/proxying.md sections 2 and 5).
//! Owns: what is removed, both ways, also on an upgrade. Never: adds Connection or Upgrade; who writes the head does.
//! Always: Host, framing and the gateway's own fields cannot be named away in Connection.

use crate::http::fields::{Field, Fields, tokens};
use crate::http::head::RequestHead;
use crate::http::known::Known;

/// Makes the fields of a client's request fit to be sent upstream. What was asked of this connection (`keep_alive`,
/// `expects_continue`, `is_websocket_upgrade`, `accepts_trailers`) must be read before. TE stays as `trailers` if the
/// client's first TE line lists it. Content-Length stays; the framing sent is the caller's.
pub fn strip_request(fields: &mut Fields, src: &[u8]) {
    fields.remove_listed(src, Known::Connection, is_protected);
    for known in [
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
    ] {
        fields.remove(known);
    }
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
    for known in [Known::Connection, Known::KeepAlive, Known::ProxyConnection, Known::TransferEncoding] {
        fields.remove(known);
    }
    let same_upgrade = match (upgrade, fields.get(src, Known::Upgrade)) {
        (Some(asked), Some(given)) => given.eq_ignore_ascii_case(asked),
        _ => false,
    };
    if !same_upgrade {
        fields.remove(Known::Upgrade);
    }
    if !trailers {
        fields.remove(Known::Trailer);
    }
    if fields.iter(src).any(|field| is_accelerator(&field)) {
        fields.retain(src, |field| !is_accelerator(&field));
    }
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
