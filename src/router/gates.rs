//! HOT. What follows a match: may this request use the route it matched (spec/router.md section 9)?
//! Owns: the decision, as a value.   Never: writes a response; protocols take no part in matching.

/// What a route demands of the requests that match it, compiled from `protocols` and `https_redirect_status_code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gates {
    /// None: the route also takes plain http.
    https_only: Option<ToHttps>,
    grpc: Option<Grpc>,
}

/// How a client is sent to https.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ToHttps {
    UpgradeRequired,
    Redirect(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grpc {
    PlainOrTls,
    TlsOnly,
}

/// What of a request the gates look at.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// `X-Forwarded-Proto` of a trusted peer, else the scheme of the connection, is `https`.
    pub forwarded_https: bool,
    pub http2: bool,
    /// Empty without the header.
    pub content_type: &'a [u8],
}

/// The decision. All but `Open` are answered by the gateway, without the plugins of the route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// 426 `Please use HTTPS protocol`, with `Connection: Upgrade` and `Upgrade: TLS/1.2, HTTP/1.1`.
    UseHttps,
    /// This status (301, 302, 307 or 308) with the `Location` of [`write_https_location`].
    RedirectToHttps(u16),
    /// 415 `Non-gRPC request matched gRPC route`.
    NotGrpc,
    /// 426 `Please use HTTP2 protocol`, with `connection: Upgrade` and `upgrade: HTTP/2`.
    UseHttp2,
    /// 200 with `content-type: application/grpc`, `grpc-status: 1`, `grpc-message: gRPC request matched gRPCs route`.
    GrpcNeedsTls,
}

/// What is said with [`Gate::UseHttps`], [`Gate::NotGrpc`], [`Gate::UseHttp2`].
pub const USE_HTTPS: &str = "Please use HTTPS protocol";
pub const NOT_GRPC: &str = "Non-gRPC request matched gRPC route";
pub const USE_HTTP2: &str = "Please use HTTP2 protocol";

impl Gates {
    /// `protocols` as the operator named them; those of the stream router demand nothing here.
    /// `redirect_status` other than 301, 302, 307 and 308 means 426.
    pub fn new<'a>(protocols: impl IntoIterator<Item = &'a str>, redirect_status: u16) -> Self {
        let (mut http, mut https, mut grpc, mut grpcs) = (false, false, false, false);
        for protocol in protocols {
            match protocol {
                "http" => http = true,
                "https" => https = true,
                "grpc" => grpc = true,
                "grpcs" => grpcs = true,
                _ => {}
            }
        }
        let to_https = match redirect_status {
            301 | 302 | 307 | 308 => ToHttps::Redirect(redirect_status),
            _ => ToHttps::UpgradeRequired,
        };
        Self {
            https_only: (https && !http).then_some(to_https),
            grpc: match (grpc, grpcs) {
                (false, false) => None,
                (false, true) => Some(Grpc::TlsOnly),
                (true, _) => Some(Grpc::PlainOrTls),
            },
        }
    }

    /// The first gate that is closed, in the order of section 9.
    pub fn check(&self, arrival: Arrival<'_>) -> Gate {
        if let Some(to_https) = self.https_only
            && !arrival.forwarded_https
        {
            return match to_https {
                ToHttps::UpgradeRequired => Gate::UseHttps,
                ToHttps::Redirect(status) => Gate::RedirectToHttps(status),
            };
        }
        let Some(grpc) = self.grpc else {
            return Gate::Open;
        };
        if !arrival.content_type.starts_with(b"application/grpc") {
            Gate::NotGrpc
        } else if !arrival.http2 {
            Gate::UseHttp2
        } else if grpc == Grpc::TlsOnly && !arrival.forwarded_https {
            Gate::GrpcNeedsTls
        } else {
            Gate::Open
        }
    }
}

/// Appends the `Location` of a redirect to https: never with a port. `host` is the forwarded host (`X-Forwarded-Host` of
/// a trusted peer, else Host), `target` the request target as received, with its query.
pub fn write_https_location(host: &[u8], target: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"https://");
    out.extend_from_slice(without_port(host));
    out.extend_from_slice(target);
}

fn without_port(host: &[u8]) -> &[u8] {
    // The colons of a bracketed IPv6 address are not those of a port.
    let name_end = if host.starts_with(b"[") { host.iter().position(|byte| *byte == b']').unwrap_or(0) } else { 0 };
    match host[name_end..].iter().position(|byte| *byte == b':') {
        Some(colon) => &host[..name_end + colon],
        None => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTTP1: Arrival<'_> = Arrival { forwarded_https: false, http2: false, content_type: b"" };
    const TLS: Arrival<'_> = Arrival { forwarded_https: true, ..HTTP1 };
    const GRPC1: Arrival<'_> = Arrival { content_type: b"application/grpc+proto", ..HTTP1 };
    const GRPC2: Arrival<'_> = Arrival { http2: true, ..GRPC1 };
    const GRPC2_TLS: Arrival<'_> = Arrival { forwarded_https: true, ..GRPC2 };

    #[track_caller]
    fn check(protocols: &[&str], status: u16, arrival: Arrival<'_>, want: Gate) {
        assert_eq!(Gates::new(protocols.iter().copied(), status).check(arrival), want);
    }

    #[test]
    fn https_only_routes_send_plain_http_to_https() {
        check(&["https"], 426, HTTP1, Gate::UseHttps);
        for status in [301, 302, 307, 308] {
            check(&["https"], status, HTTP1, Gate::RedirectToHttps(status));
            check(&["https"], status, GRPC1, Gate::RedirectToHttps(status));
        }
        check(&["https"], 301, TLS, Gate::Open);
        check(&["http", "https"], 301, HTTP1, Gate::Open);
    }

    #[test]
    fn http_only_routes_are_served_over_tls_too() {
        check(&["http"], 426, TLS, Gate::Open);
        check(&["http"], 426, GRPC2_TLS, Gate::Open);
    }

    #[test]
    fn grpc_routes_want_grpc_over_http2() {
        check(&["grpc", "grpcs"], 426, HTTP1, Gate::NotGrpc);
        check(&["grpc"], 426, GRPC1, Gate::UseHttp2);
        check(&["grpc"], 426, GRPC2, Gate::Open);
        check(&["grpc", "grpcs"], 426, GRPC2, Gate::Open);
        check(&["grpcs"], 426, GRPC2, Gate::GrpcNeedsTls);
        check(&["grpcs"], 426, GRPC2_TLS, Gate::Open);
    }

    #[test]
    fn location_has_the_target_as_received_and_no_port() {
        let cases = [
            ("sec.test:8000", "/x?y=1", "https://sec.test/x?y=1"),
            ("sec.test", "/%20?", "https://sec.test/%20?"),
            ("127.0.0.1:8000", "/x", "https://127.0.0.1/x"),
            ("[::1]:8000", "/", "https://[::1]/"),
            ("[::1]", "/", "https://[::1]/"),
            ("[::1", "/", "https://[/"),
            ("", "/", "https:///"),
        ];
        for (host, target, want) in cases {
            let mut out = Vec::new();
            write_https_location(host.as_bytes(), target.as_bytes(), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), want);
        }
    }
}
