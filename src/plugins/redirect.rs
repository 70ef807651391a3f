//! redirect: sends the client elsewhere (spec/plugins.md D.3).

use serde_json::Map;
use serde_json::Value;

use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::entity::validators::Check;
use crate::http::known::Known;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::settings;
use crate::plugins::view::View;

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "redirect",
        &[
            Field::integer("status_code").required().default_int(301).between(100, 599),
            Field::string("location").required().check(Check::Custom(check_url)),
            Field::boolean("keep_incoming_path").default_bool(false),
        ],
    ),
    priority: 779,
    build,
};

struct Redirect {
    status: u16,
    /// All of the location, or what stands before and behind the path and query of the request.
    before: Box<str>,
    behind: Box<str>,
    keeps_path: bool,
}

fn check_url(text: &str) -> Result<(), String> {
    let (scheme, rest) = text.split_once("://").ok_or("missing scheme in url")?;
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if scheme.is_empty() || host.is_empty() {
        return Err("missing host in url".to_string());
    }
    match text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(()),
        false => Err("invalid url".to_string()),
    }
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let location = settings::text(config, "location").unwrap_or_default();
    let keeps_path = settings::flag(config, "keep_incoming_path");
    let authority_end = location.find("://").and_then(|at| {
        let start = at + 3;
        location.get(start..)?.find(['/', '?', '#']).map(|length| start + length)
    });
    let (before, behind) = match authority_end.and_then(|at| location.split_at_checked(at)) {
        Some((before, path)) if keeps_path => {
            (before, path.find('#').and_then(|at| path.get(at..)).unwrap_or_default())
        }
        _ => (location, ""),
    };
    let status = config.get("status_code").and_then(Value::as_u64).unwrap_or(301) as u16;
    Ok(Box::new(Redirect { status, before: before.into(), behind: behind.into(), keeps_path }))
}

impl Plugin for Redirect {
    fn is_pure(&self) -> bool {
        true
    }

    fn access(&self, view: &mut View<'_>) -> Verdict {
        let mut location = self.before.as_bytes().to_vec();
        if self.keeps_path {
            // The normalised path may hold what no header may, such as a space.
            for &byte in view.path {
                match byte {
                    b'!'..=b'~' => location.push(byte),
                    _ => location.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                }
            }
            let query = view.query.get();
            if !query.is_empty() {
                location.push(b'?');
                location.extend_from_slice(query);
            }
            location.extend_from_slice(self.behind.as_bytes());
        }
        view.reply.raw(self.status, "", b"redirecting");
        view.reply.fields.set(Known::Location, &location);
        Verdict::Reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::plugin;
    use serde_json::json;

    #[track_caller]
    fn check(config: Value, target: &str, status: u16, location: &str) {
        let mut exchange = Exchange::new(&[&format!("GET {target}")]);
        assert_eq!(exchange.access(&*plugin(&KIND, config)), Verdict::Reply);
        assert_eq!((exchange.reply.status, exchange.reply_text().as_str()), (status, "redirecting"));
        assert_eq!(exchange.reply_fields(), [format!("Location: {location}")]);
    }

    #[test]
    fn the_client_is_sent_to_the_location() {
        check(json!({ "location": "https://new.test/x?a=1#f" }), "/p/a?b=c", 301, "https://new.test/x?a=1#f");
    }

    #[test]
    fn path_and_query_of_the_request_replace_those_of_the_location() {
        let config = |location: &str| json!({ "location": location, "status_code": 302, "keep_incoming_path": true });
        check(config("https://new.test/x?y=1"), "/p/a?b=c", 302, "https://new.test/p/a?b=c");
        check(config("https://new.test:8443/x?y=1#f"), "/p", 302, "https://new.test:8443/p#f");
        check(config("https://new.test"), "/p", 302, "https://new.test/p");
    }

    #[test]
    fn a_location_has_a_scheme_and_a_host() {
        assert_eq!(check_url("https://a.test"), Ok(()));
        assert_eq!(check_url("a.test"), Err("missing scheme in url".to_string()));
        assert_eq!(check_url("http:///x"), Err("missing host in url".to_string()));
        assert_eq!(check_url("http://a/\r\nX: y"), Err("invalid url".to_string()));
    }
}
