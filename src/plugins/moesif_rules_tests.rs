//! Whom rules stop, what they say, and how much is told of.

use super::*;
use serde_json::json;

/// A call by its parts.
struct Parts(Vec<(&'static str, &'static str)>);

impl Call for Parts {
    fn part(&self, path: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| *known == path).map(|(_, part)| (*part).to_owned())
    }
}

fn get() -> Parts {
    Parts(vec![("request.verb", "GET"), ("request.route", "/a/b")])
}

fn caller(user: &str, company: &str) -> Caller {
    let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Caller { user: known(user), company: known(company) }
}

fn governance(config: Value, rules: Value) -> Governance {
    Governance::of(&config, &rules)
}

fn blocked_by(governance: &Governance, caller: &Caller, call: &Parts) -> Option<String> {
    governance.judge(caller, call).block.map(|block| block.rule)
}

#[test]
fn rules_on_calls_match_all_conditions_of_one_alternative() {
    let condition = |path: &str, value: &str| json!({"path": path, "value": value});
    let rules = json!([{ "_id": "r", "type": "regex", "block": true, "regex_config": [
        { "conditions": [condition("request.verb", "POST")] },
        { "conditions": [condition("request.verb", "^GET$"), condition("request.route", "/a/.*")] },
    ], "response": { "status": 402, "headers": { "X-R": "{{0}}" }, "body": { "m": "no {{x}}", "l": ["{{", "}}"] } } }]);
    let governed = governance(json!({}), rules);
    let ruling = governed.judge(&caller("", ""), &get());
    assert_eq!(ruling.headers, [("X-R".to_owned(), "UNKNOWN".to_owned())]);
    let body = br#"{"m":"no UNKNOWN","l":["{{","}}"]}"#.to_vec();
    assert_eq!(ruling.block, Some(Block { rule: "r".to_owned(), status: 402, body, is_json: true }));
    assert_eq!(blocked_by(&governed, &caller("", ""), &Parts(vec![("request.verb", "POST")])).as_deref(), Some("r"));
    assert_eq!(governed.judge(&caller("", ""), &Parts(vec![("request.verb", "GET")])), Ruling::default());
}

#[test]
fn rules_on_users_and_companies_are_for_their_cohorts_or_for_the_others() {
    let rule = |id: &str, kind: &str, applied_to: &str, unidentified: bool| {
        json!({ "_id": id, "type": kind, "block": true, "applied_to": applied_to,
                "applied_to_unidentified": unidentified, "response": { "body": "hi {{0}}" } })
    };
    let config = json!({ "user_rules": { "u": [{ "rules": "in", "values": { "0": "you" } }] },
                         "company_rules": { "c": [{ "rules": "co" }] } });
    let of = |rule: Value| governance(config.clone(), json!([rule]));
    for (rule, in_cohort, other, nobody) in [
        (rule("in", "user", "matching", false), true, false, false),
        (rule("in", "user", "not_matching", false), false, true, false),
        (rule("in", "user", "matching", true), true, false, true),
        (rule("co", "company", "matching", false), true, false, false),
    ] {
        let governed = of(rule.clone());
        for (caller, want) in [(caller("u", "c"), in_cohort), (caller("x", "y"), other), (caller("", ""), nobody)] {
            assert_eq!(blocked_by(&governed, &caller, &get()).is_some(), want, "{rule} {caller:?}");
        }
    }
    let ruling = of(rule("in", "user", "matching", false)).judge(&caller("u", ""), &get());
    let block = ruling.block.expect("it blocks");
    assert_eq!((block.body.as_slice(), block.status, block.is_json), (&b"hi you"[..], 403, false));
}

#[test]
fn the_first_rule_that_blocks_counts_and_all_say_their_headers() {
    let rule = |id: &str, kind: &str, block: bool| {
        let any = json!([{ "conditions": [{ "path": "request.verb", "value": "" }] }]);
        json!({ "_id": id, "type": kind, "block": block, "applied_to_unidentified": true, "regex_config": any,
                "response": { "headers": { (format!("x-{id}")): "1" } } })
    };
    let rules = json!([rule("c", "company", true), rule("u", "user", true), rule("r", "regex", false)]);
    let ruling = governance(json!({}), rules).judge(&caller("", ""), &get());
    let names: Vec<&str> = ruling.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((ruling.block.map(|block| block.rule).as_deref(), names), (Some("u"), vec!["x-r", "x-u", "x-c"]));
}

#[test]
fn the_lowest_rate_that_concerns_a_call_holds() {
    let config = json!({ "sample_rate": 90, "user_sample_rate": { "u": 50 }, "company_sample_rate": { "c": 20, "zero": 0 },
        "regex_config": [{ "conditions": [{ "path": "request.verb", "value": "GET" }], "sample_rate": 30 }] });
    let governed = governance(config, json!([]));
    let post = Parts(vec![("request.verb", "POST")]);
    for (user, company, call, want) in [
        ("", "", &post, 90),
        ("u", "", &post, 50),
        ("u", "c", &post, 20),
        ("u", "", &get(), 30),
        ("", "zero", &get(), 0),
    ] {
        assert_eq!(governed.sample_rate(&caller(user, company), call), want, "{user} {company}");
    }
    assert_eq!(governance(json!({}), json!(null)).sample_rate(&caller("", ""), &post), 100);
}

#[test]
fn what_cannot_be_read_governs_nothing() {
    let governed = Governed::default();
    for rules in [
        json!([{ "_id": "a", "type": "regex", "block": true }]),
        json!([{ "_id": "a", "type": "regex", "block": true, "regex_config": [{ "conditions": [{ "path": "x", "value": "(" }] }] }]),
        json!([{ "type": "user", "block": true }]),
        json!([{ "_id": "a", "type": "other" }, 1, null]),
        json!({}),
    ] {
        governed.set(governance(json!([]), rules.clone()));
        assert!(!governed.is_active(), "{rules}");
    }
    governed.set(governance(json!({ "sample_rate": "x", "user_rules": [] }), json!([{ "_id": "a", "type": "user" }])));
    assert!(governed.is_active());
    assert!(governed.enlist() && !governed.enlist());
}
