//! What a collector of API analytics wants to be governed: which calls are told of, which are stopped (spec/plugins.md J.2).
//! Owns: its configuration as it was fetched last. Never: fetches it.
//! Always: what cannot be read of it governs nothing; a pattern is bounded in size.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::RwLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use regex::Regex;
use regex::RegexBuilder;
use serde_json::Value;

use crate::limits;
use crate::plugins::moesif_identity::Caller;

/// The governance of one plugin configuration, as it stands now.
#[derive(Default)]
pub struct Governed {
    /// Whether a rule might stop a request or say something in its response.
    active: AtomicBool,
    /// Whether somebody keeps it up to date.
    enlisted: AtomicBool,
    /// Read by requests only while there are rules; written when they change.
    now: RwLock<Arc<Governance>>,
}

impl Governed {
    /// Whether there are rules.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Makes the caller the one who keeps it up to date; `false`: somebody else does.
    pub fn enlist(&self) -> bool {
        !self.enlisted.swap(true, Ordering::AcqRel)
    }

    /// The present governance.
    pub fn now(&self) -> Arc<Governance> {
        self.now.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Takes another one.
    pub fn set(&self, governance: Governance) {
        let active = !governance.rules.is_empty();
        *self.now.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Arc::new(governance);
        self.active.store(active, Ordering::Release);
    }
}

impl std::fmt::Debug for Governed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Governed").finish_non_exhaustive()
    }
}

/// What `/v1/config` and `/v1/rules` say.
#[derive(Debug, Clone, Default)]
pub struct Governance {
    sampling: Sampling,
    rules: Vec<Rule>,
    of_users: HashMap<String, Vec<Assigned>>,
    of_companies: HashMap<String, Vec<Assigned>>,
}

/// How many of the calls are told of, in per cent.
#[derive(Debug, Clone)]
struct Sampling {
    of_all: u8,
    of_users: HashMap<String, u8>,
    of_companies: HashMap<String, u8>,
    of_calls: Vec<(Vec<Condition>, u8)>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { of_all: 100, of_users: HashMap::new(), of_companies: HashMap::new(), of_calls: Vec::new() }
    }
}

/// A rule that an entity is in the cohort of, and what its placeholders stand for.
#[derive(Debug, Clone)]
struct Assigned {
    rule: String,
    values: HashMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RuleKind {
    Calls,
    User,
    Company,
}

#[derive(Debug, Clone)]
struct Rule {
    id: String,
    kind: RuleKind,
    blocks: bool,
    /// Whether it is for those who are not in its cohort.
    for_others: bool,
    for_unidentified: bool,
    /// Any of them, each with all its conditions; empty: every call.
    alternatives: Vec<Vec<Condition>>,
    status: u16,
    headers: Vec<(String, String)>,
    body: Option<Value>,
}

/// A pattern that a part of the call must match.
#[derive(Debug, Clone)]
struct Condition {
    path: String,
    pattern: Regex,
}

/// The parts of a call that conditions name, by paths such as `request.verb`.
pub trait Call {
    /// The part; `None`: the call has none.
    fn part(&self, path: &str) -> Option<String>;
}

/// What rules make of a call.
#[derive(Debug, Default, PartialEq)]
pub struct Ruling {
    /// For the response, whoever makes it.
    pub headers: Vec<(String, String)>,
    pub block: Option<Block>,
}

/// The answer in place of the upstream's.
#[derive(Debug, PartialEq)]
pub struct Block {
    pub rule: String,
    pub status: u16,
    pub body: Vec<u8>,
    /// JSON, unless the rule's headers say something else.
    pub is_json: bool,
}

impl Governance {
    /// Of the bodies of `/v1/config` and `/v1/rules`.
    pub fn of(config: &Value, rules: &Value) -> Self {
        let rate = |value: &Value| value.as_f64().map(|rate| rate.clamp(0.0, 100.0) as u8);
        let rates = |name: &str| -> HashMap<String, u8> {
            let of_each = config.get(name).and_then(Value::as_object).into_iter().flatten();
            of_each.filter_map(|(id, value)| Some((id.clone(), rate(value)?))).collect()
        };
        let of_calls = config.get("regex_config").and_then(Value::as_array).into_iter().flatten();
        Self {
            sampling: Sampling {
                of_all: config.get("sample_rate").and_then(rate).unwrap_or(100),
                of_users: rates("user_sample_rate"),
                of_companies: rates("company_sample_rate"),
                of_calls: of_calls
                    .filter_map(|entry| Some((conditions(entry)?, rate(entry.get("sample_rate")?)?)))
                    .collect(),
            },
            rules: rules.as_array().into_iter().flatten().filter_map(Rule::parse).collect(),
            of_users: assignments(config.get("user_rules")),
            of_companies: assignments(config.get("company_rules")),
        }
    }

    /// How many of such calls are told of, in per cent.
    pub fn sample_rate(&self, caller: &Caller, call: &dyn Call) -> u8 {
        let known = |rates: &HashMap<String, u8>, id: &Option<String>| rates.get(id.as_deref()?).copied();
        let of_call = self.sampling.of_calls.iter().filter(|(conditions, _)| are_met(conditions, call));
        let rates = [known(&self.sampling.of_users, &caller.user), known(&self.sampling.of_companies, &caller.company)];
        let lowest = rates.into_iter().flatten().chain(of_call.map(|(_, rate)| *rate)).min();
        lowest.unwrap_or(self.sampling.of_all)
    }

    /// What the rules make of a call. Of several that block the first counts: rules on calls, on users, on companies.
    pub fn judge(&self, caller: &Caller, call: &dyn Call) -> Ruling {
        let mut ruling = Ruling::default();
        for kind in [RuleKind::Calls, RuleKind::User, RuleKind::Company] {
            let (id, cohorts) = match kind {
                RuleKind::Calls => (None, None),
                RuleKind::User => (caller.user.as_deref(), Some(&self.of_users)),
                RuleKind::Company => (caller.company.as_deref(), Some(&self.of_companies)),
            };
            let assigned = id.and_then(|id| cohorts?.get(id)).map_or(&[][..], Vec::as_slice);
            for rule in self.rules.iter().filter(|rule| rule.kind == kind) {
                let own = assigned.iter().find(|assigned| assigned.rule == rule.id);
                if rule.applies(id, own, call) {
                    rule.add_to(&mut ruling, own);
                }
            }
        }
        ruling
    }
}

impl Rule {
    fn parse(value: &Value) -> Option<Self> {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let flag = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or(false);
        let kind = match text("type")? {
            "regex" => RuleKind::Calls,
            "user" => RuleKind::User,
            "company" => RuleKind::Company,
            _ => return None,
        };
        let response = value.get("response");
        let part = |name: &str| response.and_then(|response| response.get(name)).filter(|part| !part.is_null());
        let headers = part("headers").and_then(Value::as_object).into_iter().flatten();
        let alternatives = value.get("regex_config").and_then(Value::as_array).into_iter().flatten();
        let alternatives: Vec<_> = alternatives.map(conditions).collect::<Option<_>>()?;
        let status = part("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
        // A rule on calls that names no call would stop every one of them.
        if kind == RuleKind::Calls && alternatives.is_empty() {
            return None;
        }
        Some(Self {
            id: text("_id")?.to_owned(),
            kind,
            blocks: flag("block"),
            for_others: text("applied_to") == Some("not_matching"),
            for_unidentified: flag("applied_to_unidentified"),
            alternatives,
            status: status.filter(|status| (200..600).contains(status)).unwrap_or(403),
            headers: headers.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect(),
            body: part("body").cloned(),
        })
    }

    fn applies(&self, id: Option<&str>, own: Option<&Assigned>, call: &dyn Call) -> bool {
        let is_concerned = match (self.kind, id) {
            (RuleKind::Calls, _) => true,
            (_, Some(_)) => own.is_some() != self.for_others,
            (_, None) => self.for_unidentified,
        };
        is_concerned && (self.alternatives.is_empty() || self.alternatives.iter().any(|all| are_met(all, call)))
    }

    fn add_to(&self, ruling: &mut Ruling, own: Option<&Assigned>) {
        let values = own.map(|own| &own.values);
        if self.blocks && ruling.block.is_none() {
            let body = match &self.body {
                None => Vec::new(),
                Some(Value::String(text)) => filled(text, values).into_bytes(),
                Some(other) => fill_all(other.clone(), values).to_string().into_bytes(),
            };
            let is_json = self.body.as_ref().is_some_and(|body| !body.is_string());
            ruling.block = Some(Block { rule: self.id.clone(), status: self.status, body, is_json });
        }
        ruling.headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), filled(value, values))));
    }
}

/// `None`: they cannot be read.
fn conditions(entry: &Value) -> Option<Vec<Condition>> {
    let listed = entry.get("conditions")?.as_array()?;
    listed
        .iter()
        .map(|condition| {
            let pattern = RegexBuilder::new(condition.get("value")?.as_str()?)
                .size_limit(limits::RULE_PATTERN_BYTES_MAX)
                .build()
                .ok()?;
            Some(Condition { path: condition.get("path")?.as_str()?.to_owned(), pattern })
        })
        .collect()
}

fn are_met(conditions: &[Condition], call: &dyn Call) -> bool {
    !conditions.is_empty()
        && conditions.iter().all(|wanted| call.part(&wanted.path).is_some_and(|part| wanted.pattern.is_match(&part)))
}

fn assignments(value: Option<&Value>) -> HashMap<String, Vec<Assigned>> {
    let of_each = value.and_then(Value::as_object).into_iter().flatten();
    of_each
        .map(|(id, listed)| {
            let listed = listed.as_array().into_iter().flatten();
            let assigned = listed.filter_map(|entry| {
                let values = entry.get("values").and_then(Value::as_object).into_iter().flatten();
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                Some(Assigned {
                    rule: entry.get("rules")?.as_str()?.to_owned(),
                    values: values.map(|(name, value)| (name.clone(), text(value))).collect(),
                })
            });
            (id.clone(), assigned.collect())
        })
        .collect()
}

/// The text with its `{{name}}` filled in.
fn filled(text: &str, values: Option<&HashMap<String, String>>) -> String {
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, name, after)) = rest
        .split_once("{{")
        .and_then(|(before, tail)| tail.split_once("}}").map(|(name, after)| (before, name, after)))
    {
        whole.push_str(before);
        whole.push_str(values.and_then(|values| values.get(name.trim())).map_or("UNKNOWN", String::as_str));
        rest = after;
    }
    whole.push_str(rest);
    whole
}

fn fill_all(mut body: Value, values: Option<&HashMap<String, String>>) -> Value {
    match &mut body {
        Value::String(text) => *text = filled(text, values),
        Value::Array(list) => list.iter_mut().for_each(|one| *one = fill_all(one.take(), values)),
        Value::Object(fields) => fields.values_mut().for_each(|one| *one = fill_all(one.take(), values)),
        _ => {}
    }
    body
}

#[cfg(test)]
#[path = "moesif_rules_tests.rs"]
mod tests;
