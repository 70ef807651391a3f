//! HOT: an address is compared with a short list of blocks.
//! ip-restriction: clients of some addresses may, others may not (spec/plugins.md C.5).

use serde_json::Map;
use serde_json::Value;

use crate::config::Cidr;
use crate::entity::ANY_PROTOCOL;
use crate::entity::PluginSchema;
use crate::entity::checks::EntityCheck;
use crate::entity::schema::Field;
use crate::entity::validators::Check;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::settings;
use crate::plugins::view::View;

const BLOCK: Field = Field::string("").check(Check::IpOrCidr);
const PROTOCOLS: Field =
    Field::set("protocols", &ANY_PROTOCOL).required().default_strs(&["http", "https", "tcp", "tls", "grpc", "grpcs"]);

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "ip-restriction",
        &[
            Field::array("allow", &BLOCK),
            Field::array("deny", &BLOCK),
            Field::number("status").optional(),
            Field::string("message").optional(),
        ],
    )
    .checks(&[EntityCheck::AtLeastOneOf(&["config.allow", "config.deny"])])
    .protocols(PROTOCOLS),
    priority: 990,
    build,
};

struct IpRestriction {
    allow: Box<[Cidr]>,
    deny: Box<[Cidr]>,
    status: u16,
    /// `None`: one that names the address.
    message: Option<Box<str>>,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let status = match config.get("status").and_then(Value::as_f64) {
        None => 403,
        // Kong stores any number here and fails when a request comes.
        Some(status) if (100.0..600.0).contains(&status) => status as u16,
        Some(_) => {
            let message = "value should be between 100 and 599".to_string();
            return Err(ConfigError { field: "status".to_string(), message });
        }
    };
    Ok(Box::new(IpRestriction {
        allow: blocks(config, "allow")?,
        deny: blocks(config, "deny")?,
        status,
        message: settings::text(config, "message").map(Box::from),
    }))
}

fn blocks(config: &Map<String, Value>, field: &str) -> Result<Box<[Cidr]>, ConfigError> {
    let parse = |text: &str| {
        let message = format!("invalid ip or cidr range: '{text}'");
        Cidr::parse(text).ok_or(ConfigError { field: field.to_string(), message })
    };
    settings::texts(config, field).map(parse).collect()
}

impl Plugin for IpRestriction {
    fn is_pure(&self) -> bool {
        true
    }

    fn access(&self, view: &mut View<'_>) -> Verdict {
        let ip = view.client_ip;
        let denied = self.deny.iter().any(|block| block.contains(ip));
        let allowed = self.allow.is_empty() || self.allow.iter().any(|block| block.contains(ip));
        if allowed && !denied {
            return Verdict::Continue;
        }
        match &self.message {
            Some(message) => view.reply.gateway(self.status, message),
            None => view.reply.gateway(self.status, &format!("IP address not allowed: {}", ip.to_canonical())),
        }
        Verdict::Reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::plugin;
    use crate::plugins::testing::refusal;
    use serde_json::json;

    /// The client is 127.0.0.1.
    #[track_caller]
    fn check(config: Value, want: Result<(), (u16, &str)>) {
        let mut exchange = Exchange::new(&["GET /p"]);
        let verdict = exchange.access(&*plugin(&KIND, config));
        match want {
            Ok(()) => assert_eq!(verdict, Verdict::Continue),
            Err((status, text)) => {
                assert_eq!(verdict, Verdict::Reply);
                assert_eq!((exchange.reply.status, exchange.reply_text().as_str()), (status, text));
            }
        }
    }

    #[test]
    fn who_is_denied_or_not_allowed_is_refused() {
        let refused = Err((403, "IP address not allowed: 127.0.0.1"));
        check(json!({ "allow": ["127.0.0.0/8"] }), Ok(()));
        check(json!({ "allow": ["10.0.0.0/8", "127.0.0.1"] }), Ok(()));
        check(json!({ "allow": ["10.0.0.0/8", "::1"] }), refused);
        check(json!({ "deny": ["127.0.0.1"] }), refused);
        check(json!({ "deny": ["127.0.0.2"] }), Ok(()));
        check(json!({ "allow": ["127.0.0.1"], "deny": ["127.0.0.0/30"] }), refused);
        check(json!({ "deny": ["127.0.0.1"], "status": 451, "message": "go away" }), Err((451, "go away")));
    }

    #[test]
    fn a_status_that_no_answer_can_have_is_refused() {
        assert_eq!(refusal(&KIND, json!({ "allow": ["::1"], "status": 1000 })).0, "status");
    }
}
