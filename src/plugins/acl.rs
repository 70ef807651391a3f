//! HOT: groups are compared in place; the header is joined in memory that the exchange keeps.
//! acl: consumers of some groups may, others may not (spec/plugins.md B.5).

use serde_json::Map;
use serde_json::Value;

use crate::entity::PluginSchema;
use crate::entity::checks::EntityCheck;
use crate::entity::schema::Field;
use crate::http::known::Known;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::settings;
use crate::plugins::view::View;

const GROUP: Field = Field::string("");

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "acl",
        &[
            Field::array("allow", &GROUP),
            Field::array("deny", &GROUP),
            Field::boolean("hide_groups_header").required().default_bool(false),
            Field::boolean("always_use_authenticated_groups").required().default_bool(false),
        ],
    )
    .checks(&[
        EntityCheck::OnlyOneOf(&["config.allow", "config.deny"]),
        EntityCheck::AtLeastOneOf(&["config.allow", "config.deny"]),
    ])
    .no_consumer(),
    priority: 950,
    build,
};

/// Which groups the list names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Allow,
    Deny,
}

struct Acl {
    meaning: Meaning,
    groups: Box<[Box<str>]>,
    hide_groups: bool,
    /// Groups that authentication told come before those of the consumer.
    prefer_told: bool,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let allow: Box<[Box<str>]> = settings::texts(config, "allow").map(Box::from).collect();
    let deny: Box<[Box<str>]> = settings::texts(config, "deny").map(Box::from).collect();
    let (meaning, groups) = if allow.is_empty() { (Meaning::Deny, deny) } else { (Meaning::Allow, allow) };
    Ok(Box::new(Acl {
        meaning,
        groups,
        hide_groups: settings::flag(config, "hide_groups_header"),
        prefer_told: settings::flag(config, "always_use_authenticated_groups"),
    }))
}

/// Why a request is refused.
enum Refusal {
    /// It is not known whose it is: 401.
    Unknown,
    /// It is known, and not enough: 403.
    Forbidden,
}

impl Plugin for Acl {
    fn access(&self, view: &mut View<'_>) -> Verdict {
        let known = if view.identity.credential.is_some() { Refusal::Forbidden } else { Refusal::Unknown };
        let told = view.identity.groups.as_ref();
        let own = || view.identity.consumer.and_then(|consumer| view.directory.groups(consumer));
        let prefers_told = view.identity.consumer.is_none() || view.identity.credential.is_none() || self.prefer_told;
        let (groups, header) = match told {
            Some(told) if prefers_told => (Some(told), Known::XAuthenticatedGroups),
            _ => (own(), Known::XConsumerGroups),
        };
        let refusal = match groups {
            Some(groups) if groups.any_of(&self.groups) == (self.meaning == Meaning::Allow) => None,
            Some(_) => Some(Refusal::Forbidden),
            None if view.identity.consumer.is_some() && self.meaning == Meaning::Deny => None,
            None => Some(known),
        };
        match refusal {
            Some(Refusal::Unknown) => view.reply.gateway(401, "Unauthorized"),
            Some(Refusal::Forbidden) => view.reply.gateway(403, "You cannot consume this service"),
            None => {
                let shown = groups.filter(|_| !self.hide_groups).map(|groups| groups.text.as_bytes());
                for name in [Known::XConsumerGroups, Known::XAuthenticatedGroups] {
                    match shown.filter(|_| name == header) {
                        Some(text) => view.fields.set(name, text),
                        None => drop(view.fields.remove(name)),
                    };
                }
                return Verdict::Continue;
            }
        }
        Verdict::Reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::directory::Groups;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::plugin;
    use serde_json::json;
    use std::sync::Arc;
    use uuid::Uuid;

    const FORBIDDEN: Result<&str, u16> = Err(403);
    const UNKNOWN: Result<&str, u16> = Err(401);

    /// Consumers 1 (groups g1, g2) and 2 (none); 0: no consumer, with or without a credential, and groups told.
    #[track_caller]
    fn check(config: Value, (consumer, credential, told): (u128, bool, &[&str]), want: Result<&str, u16>) {
        let mut exchange = Exchange::new(&["GET /p", "X-Consumer-Groups: admin", "X-Authenticated-Groups: admin"]);
        exchange.identity.consumer = (consumer > 0).then(|| Uuid::from_u128(consumer));
        exchange.identity.credential = credential.then(|| Uuid::from_u128(9));
        let names = told.iter().map(|name| Box::from(*name)).collect();
        exchange.identity.groups = (!told.is_empty()).then(|| Arc::new(Groups::new(names)));
        match (exchange.access(&*plugin(&KIND, config)), want) {
            (Verdict::Continue, Ok(header)) => assert_eq!(exchange.fields().join(";"), header),
            (Verdict::Reply, Err(status)) => {
                assert_eq!(exchange.reply.status, status);
                assert!(exchange.reply_fields().is_empty());
            }
            (verdict, _) => panic!("{verdict:?}, not {want:?}"),
        }
    }

    #[test]
    fn the_groups_of_the_consumer_decide() {
        let (alice, bob) = ((1, true, &[][..]), (2, true, &[][..]));
        check(json!({ "allow": ["g0", "g2"] }), alice, Ok("X-Consumer-Groups: g1, g2"));
        check(json!({ "allow": ["g3"] }), alice, FORBIDDEN);
        check(json!({ "allow": ["g1"] }), bob, FORBIDDEN);
        check(json!({ "deny": ["g1"] }), alice, FORBIDDEN);
        check(json!({ "deny": ["g3"] }), alice, Ok("X-Consumer-Groups: g1, g2"));
        check(json!({ "deny": ["g3"] }), bob, Ok(""));
        check(json!({ "allow": ["g1"], "hide_groups_header": true }), alice, Ok(""));
    }

    #[test]
    fn a_request_of_nobody_is_refused() {
        for config in [json!({ "allow": ["g1"] }), json!({ "deny": ["g1"] })] {
            check(config.clone(), (0, false, &[]), UNKNOWN);
            check(config, (0, true, &[]), FORBIDDEN);
        }
        check(json!({ "allow": ["g3"] }), (2, false, &[]), UNKNOWN);
    }

    #[test]
    fn groups_that_authentication_told_count_for_who_has_no_credential_or_where_asked_for() {
        let told = Ok("X-Authenticated-Groups: t");
        let allow = json!({ "allow": ["t"] });
        check(allow.clone(), (0, false, &["t"]), told);
        check(allow.clone(), (1, false, &["t"]), told);
        check(allow.clone(), (1, true, &["t"]), FORBIDDEN);
        check(json!({ "allow": ["t"], "always_use_authenticated_groups": true }), (1, true, &["t"]), told);
        let always = json!({ "allow": ["g1"], "always_use_authenticated_groups": true });
        check(always.clone(), (1, true, &["t"]), FORBIDDEN);
        check(always, (1, true, &[]), Ok("X-Consumer-Groups: g1, g2"));
    }
}
