//! The `headers` and `headers_upstream` properties: which headers of ours are sent (spec/proxying.md section 6).

use serde_json::Value as Json;

use super::kind::{Kind, Problem, list, strings};

/// Which headers the gateway adds to responses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResponseHeaders {
    pub server: bool,
    pub via: bool,
    pub proxy_latency: bool,
    pub response_latency: bool,
    pub upstream_latency: bool,
    pub admin_latency: bool,
    pub upstream_status: bool,
    pub request_id: bool,
}

/// A comma list of tokens, or `off`.
pub struct ResponseTokens;
impl Kind for ResponseTokens {
    type Value = ResponseHeaders;
    const ACCEPTS: &'static str = "off, or a list of server_tokens, latency_tokens, Server, Via, X-Kong-Proxy-Latency, \
        X-Kong-Response-Latency, X-Kong-Upstream-Latency, X-Kong-Admin-Latency, X-Kong-Upstream-Status, X-Kong-Request-Id";
    fn parse(text: &str) -> Result<ResponseHeaders, Problem> {
        let mut on = ResponseHeaders::default();
        if text.eq_ignore_ascii_case("off") {
            return Ok(on);
        }
        for token in list(text) {
            match token.to_ascii_lowercase().as_str() {
                "server_tokens" => (on.server, on.via) = (true, true),
                "latency_tokens" => {
                    (on.proxy_latency, on.response_latency) = (true, true);
                    (on.upstream_latency, on.admin_latency) = (true, true);
                }
                "server" => on.server = true,
                "via" => on.via = true,
                "x-kong-proxy-latency" => on.proxy_latency = true,
                "x-kong-response-latency" => on.response_latency = true,
                "x-kong-upstream-latency" => on.upstream_latency = true,
                "x-kong-admin-latency" => on.admin_latency = true,
                "x-kong-upstream-status" => on.upstream_status = true,
                "x-kong-request-id" => on.request_id = true,
                "off" => return Err(Problem::because("\"off\" must stand alone")),
                _ => return Err(Problem::Because(format!("unknown header \"{token}\""))),
            }
        }
        Ok(on)
    }
    /// With the two group names where the whole group is on, as an operator would write it.
    fn describe(on: &ResponseHeaders) -> Json {
        let server_tokens = on.server && on.via;
        let latency_tokens = on.proxy_latency && on.response_latency && on.upstream_latency && on.admin_latency;
        let words = [
            (server_tokens, "server_tokens"),
            (on.server && !server_tokens, "server"),
            (on.via && !server_tokens, "via"),
            (latency_tokens, "latency_tokens"),
            (on.proxy_latency && !latency_tokens, "x-kong-proxy-latency"),
            (on.response_latency && !latency_tokens, "x-kong-response-latency"),
            (on.upstream_latency && !latency_tokens, "x-kong-upstream-latency"),
            (on.admin_latency && !latency_tokens, "x-kong-admin-latency"),
            (on.upstream_status, "x-kong-upstream-status"),
            (on.request_id, "x-kong-request-id"),
        ];
        let mut words: Vec<&str> = words.into_iter().filter_map(|(present, word)| present.then_some(word)).collect();
        if words.is_empty() {
            words.push("off");
        }
        strings(words)
    }
}

/// Which headers the gateway adds to requests beyond the forwarding ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestHeaders {
    pub request_id: bool,
}

/// `X-Kong-Request-Id` or `off`.
pub struct RequestTokens;
impl Kind for RequestTokens {
    type Value = RequestHeaders;
    const ACCEPTS: &'static str = "X-Kong-Request-Id, off";
    fn parse(text: &str) -> Result<RequestHeaders, Problem> {
        match text.to_ascii_lowercase().as_str() {
            "x-kong-request-id" => Ok(RequestHeaders { request_id: true }),
            "off" => Ok(RequestHeaders::default()),
            _ => Err(Problem::NotAccepted),
        }
    }
    fn describe(on: &RequestHeaders) -> Json {
        strings([if on.request_id { "x-kong-request-id" } else { "off" }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_turn_their_headers_on_and_are_shown_in_short() {
        for (text, shown) in [
            (
                "server_tokens, latency_tokens, X-Kong-Request-Id",
                r#"["server_tokens","latency_tokens","x-kong-request-id"]"#,
            ),
            ("off", r#"["off"]"#),
            ("OFF", r#"["off"]"#),
            ("Via,SERVER", r#"["server_tokens"]"#),
            ("via, x-kong-upstream-status", r#"["via","x-kong-upstream-status"]"#),
            ("X-Kong-Proxy-Latency", r#"["x-kong-proxy-latency"]"#),
        ] {
            let on = ResponseTokens::parse(text).expect(text);
            assert_eq!(ResponseTokens::describe(&on).to_string(), shown, "{text}");
            let again: Vec<String> = serde_json::from_str(shown).expect(shown);
            assert_eq!(ResponseTokens::parse(&again.join(",")), Ok(on), "{shown}");
        }
    }

    #[test]
    fn unknown_tokens_and_a_crowded_off_are_refused() {
        assert_eq!(
            ResponseTokens::parse("via, x-powered-by"),
            Err(Problem::because("unknown header \"x-powered-by\""))
        );
        assert_eq!(ResponseTokens::parse("via, off"), Err(Problem::because("\"off\" must stand alone")));
        assert_eq!(RequestTokens::parse("via"), Err(Problem::NotAccepted));
    }
}
