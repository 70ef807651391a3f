//! HOT: a message is hashed where it lies.
//! standard-webhooks: only messages signed with a shared secret pass (spec/plugins.md I; www.standardwebhooks.com).
//! Always: signatures are compared in constant time, and whatever is wrong has one answer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::Map;
use serde_json::Value;

use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::settings;
use crate::plugins::view::View;
use crate::stdx::secret::equal;

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "standard-webhooks",
        &[
            Field::string("secret_v1").required().referenceable().encrypted(),
            Field::integer("tolerance_second").required().default_int(300),
        ],
    )
    .no_consumer(),
    priority: 760,
    build,
};

struct StandardWebhooks {
    key: hmac::Key,
    /// How old a message may be.
    tolerance_s: i64,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let secret = settings::secret(config, "secret_v1")?;
    let tolerance_s = config.get("tolerance_second").and_then(Value::as_i64).unwrap_or(300);
    Ok(Box::new(StandardWebhooks { key: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), tolerance_s }))
}

impl Plugin for StandardWebhooks {
    fn access(&self, view: &mut View<'_>) -> Verdict {
        if self.is_signed(view) == Some(true) {
            return Verdict::Continue;
        }
        view.reply.gateway(400, "Bad request");
        Verdict::Reply
    }

    fn reads_body(&self) -> bool {
        true
    }
}

impl StandardWebhooks {
    /// `None`: something that has to be there is not.
    fn is_signed(&self, view: &View<'_>) -> Option<bool> {
        let id = view.header(b"webhook-id").filter(|id| !id.is_empty())?;
        let timestamp = view.header(b"webhook-timestamp")?;
        let given = view.header(b"webhook-signature")?;
        let body = view.body.as_ref().map(|body| body.get()).filter(|body| !body.is_empty())?;
        let sent_s: i64 = std::str::from_utf8(timestamp).ok()?.parse().ok()?;
        let now_s = (view.now_unix_ms / 1000) as i64;
        if now_s.saturating_sub(sent_s) > self.tolerance_s {
            return Some(false);
        }
        let mut hash = hmac::Context::with_key(&self.key);
        [id, b".", timestamp, b".", body].iter().for_each(|piece| hash.update(piece));
        let mut room = *b"v1,............................................";
        STANDARD.encode_slice(hash.sign(), room.get_mut(3..)?).ok()?;
        Some(equal(given, &room))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::NOW_UNIX_MS;
    use crate::plugins::testing::plugin;
    use crate::plugins::testing::refusal;
    use serde_json::json;

    fn signature(id: &str, timestamp: &str, body: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"shh");
        format!("v1,{}", STANDARD.encode(hmac::sign(&key, format!("{id}.{timestamp}.{body}").as_bytes())))
    }

    /// Seconds since 1970, so many from now.
    fn time(seconds: i64) -> String {
        ((NOW_UNIX_MS / 1000) as i64 + seconds).to_string()
    }

    fn verdict(lines: &[(&str, &str)], body: Option<&str>) -> (Verdict, String) {
        let lines: Vec<String> = lines.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let mut all = vec!["POST /p"];
        all.extend(lines.iter().map(String::as_str));
        let mut exchange = Exchange::new(&all);
        if let Some(body) = body {
            exchange = exchange.with_body(body);
        }
        let verdict = exchange.access(&*plugin(&KIND, json!({ "secret_v1": "shh" })));
        (verdict, format!("{} {}", exchange.reply.status, exchange.reply_text()))
    }

    fn message(id: &str, timestamp: &str, signature: &str, body: Option<&str>) -> bool {
        let lines = [("webhook-id", id), ("Webhook-Timestamp", timestamp), ("webhook-signature", signature)];
        match verdict(&lines, body) {
            (Verdict::Continue, _) => true,
            (verdict, said) => {
                assert_eq!((verdict, said.as_str()), (Verdict::Reply, "400 Bad request"));
                false
            }
        }
    }

    #[test]
    fn a_secret_in_a_vault_is_refused() {
        let (field, message) = refusal(&KIND, json!({ "secret_v1": "{vault://env/secret}" }));
        assert_eq!(
            (&*field, &*message),
            ("secret_v1", "vault references are not resolved yet; write the value itself")
        );
    }

    #[test]
    fn a_message_with_its_signature_passes_while_it_is_young() {
        for (seconds, passes) in [(0, true), (-300, true), (-301, false), (1000, true)] {
            let sent = time(seconds);
            assert_eq!(message("m1", &sent, &signature("m1", &sent, "{}"), Some("{}")), passes, "{seconds}");
        }
    }

    #[test]
    fn any_other_message_is_a_bad_request() {
        let now = time(0);
        let good = signature("m1", &now, "{}");
        assert!(message("m1", &now, &good, Some("{}")));
        assert!(!message("m2", &now, &good, Some("{}")));
        assert!(!message("m1", &time(1), &good, Some("{}")));
        assert!(!message("m1", &now, &good, Some("{ }")));
        assert!(!message("m1", &now, &good, None));
        assert!(!message("m1", &now, &signature("m1", &now, ""), Some("")));
        assert!(!message("", &now, &signature("", &now, "{}"), Some("{}")));
        assert!(!message("m1", "soon", &signature("m1", "soon", "{}"), Some("{}")));
        for wrong in ["", "v1,", &good.replace("v1", "v2"), &format!("{good} {good}")] {
            assert!(!message("m1", &now, wrong, Some("{}")), "{wrong}");
        }
        let lines = [("webhook-id", "m1"), ("webhook-timestamp", &*now), ("webhook-signature", &*good)];
        for missing in 0..3 {
            let mut lines = lines.to_vec();
            lines.remove(missing);
            assert_eq!(verdict(&lines, Some("{}")).0, Verdict::Reply);
        }
    }
}
