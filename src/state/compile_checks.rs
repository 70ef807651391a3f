//! `upstreams.healthchecks` as stored -> what probes and traffic are judged by (spec/balancer.md section 11).

use std::sync::Arc;

use serde_json::Value;

use crate::balancer::checks::Active;
use crate::balancer::checks::Checks;
use crate::balancer::checks::Limits;
use crate::balancer::checks::Passive;
use crate::balancer::checks::ProbeKind;
use crate::balancer::checks::StatusSet;

/// The checks, if they are on: when probes have an interval, or a failure of traffic a limit.
pub(super) fn compile_checks(row: &Value, trial_after_ms: Option<u64>) -> Option<Checks> {
    let active = active(row.get("active").unwrap_or(&Value::Null));
    let passive = passive(row.get("passive").unwrap_or(&Value::Null));
    let Limits { tcp_failures, http_failures, timeouts, .. } = passive.limits;
    let on = active.healthy_interval_ms > 0
        || active.unhealthy_interval_ms > 0
        || [tcp_failures, http_failures, timeouts].iter().any(|limit| *limit > 0);
    on.then_some(Checks { active, passive, trial_after_ms })
}

fn active(row: &Value) -> Active {
    let kind = match row.get("type").and_then(Value::as_str) {
        Some("tcp") => ProbeKind::Tcp,
        Some("https") => ProbeKind::Https,
        Some("grpc") => ProbeKind::Grpc,
        Some("grpcs") => ProbeKind::Grpcs,
        _ => ProbeKind::Http,
    };
    let headers = row.get("headers").and_then(Value::as_object).into_iter().flatten().map(|(name, values)| {
        let values = values.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        (name.clone(), values.collect())
    });
    Active {
        kind,
        timeout_ms: milliseconds(row, "/timeout", 1.0),
        concurrency: row.get("concurrency").and_then(Value::as_u64).unwrap_or(10).clamp(1, u64::from(u32::MAX)) as u32,
        http_path: row.get("http_path").and_then(Value::as_str).unwrap_or("/").into(),
        headers: headers.collect::<Vec<_>>().into(),
        https_sni: row.get("https_sni").and_then(Value::as_str).map(Arc::from),
        https_verify_certificate: row.get("https_verify_certificate").and_then(Value::as_bool).unwrap_or(true),
        healthy_interval_ms: milliseconds(row, "/healthy/interval", 0.0),
        unhealthy_interval_ms: milliseconds(row, "/unhealthy/interval", 0.0),
        healthy_statuses: statuses(row, "/healthy/http_statuses"),
        unhealthy_statuses: statuses(row, "/unhealthy/http_statuses"),
        limits: limits(row),
    }
}

fn passive(row: &Value) -> Passive {
    Passive {
        healthy_statuses: statuses(row, "/healthy/http_statuses"),
        unhealthy_statuses: statuses(row, "/unhealthy/http_statuses"),
        limits: limits(row),
    }
}

/// Seconds with fractions; what is above zero never becomes zero, which means "off".
fn milliseconds(row: &Value, pointer: &str, absent: f64) -> u64 {
    let seconds = row.pointer(pointer).and_then(Value::as_f64).unwrap_or(absent);
    if seconds > 0.0 { ((seconds * 1000.0).round() as u64).max(1) } else { 0 }
}

fn statuses(row: &Value, pointer: &str) -> StatusSet {
    let list = row.pointer(pointer).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_u64).map(|status| status as u16).collect()
}

fn limits(row: &Value) -> Limits {
    let count = |pointer: &str| row.pointer(pointer).and_then(Value::as_u64).unwrap_or(0).min(255) as u8;
    Limits {
        successes: count("/healthy/successes"),
        tcp_failures: count("/unhealthy/tcp_failures"),
        http_failures: count("/unhealthy/http_failures"),
        timeouts: count("/unhealthy/timeouts"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn checks_are_on_when_probes_have_an_interval_or_failures_of_traffic_a_limit() {
        let check = |row: Value, want: bool| assert_eq!(compile_checks(&row, None).is_some(), want, "{row}");
        check(json!(null), false);
        check(json!({"threshold": 50}), false);
        check(json!({"passive": {"healthy": {"successes": 3}}}), false);
        check(json!({"active": {"unhealthy": {"tcp_failures": 3}}}), false);
        check(json!({"active": {"healthy": {"interval": 0.1}}}), true);
        check(json!({"active": {"unhealthy": {"interval": 1}}}), true);
        for limit in ["tcp_failures", "http_failures", "timeouts"] {
            check(json!({"passive": {"unhealthy": {limit: 1}}}), true);
        }
    }

    #[test]
    fn every_field_arrives() {
        let row = json!({
            "active": {"type": "https", "timeout": 0.5, "concurrency": 3, "http_path": "/up", "https_sni": "s.test",
                "https_verify_certificate": false, "headers": {"x-a": ["1", "2"]},
                "healthy": {"interval": 2, "http_statuses": [200], "successes": 4},
                "unhealthy": {"interval": 0.0001, "http_statuses": [500], "tcp_failures": 5, "http_failures": 6, "timeouts": 7}},
            "passive": {"healthy": {"http_statuses": [201], "successes": 1},
                "unhealthy": {"http_statuses": [503], "tcp_failures": 2, "http_failures": 3, "timeouts": 255}}});
        let checks = compile_checks(&row, Some(9)).unwrap();
        let active = &checks.active;
        assert_eq!((active.kind, active.timeout_ms, active.concurrency), (ProbeKind::Https, 500, 3));
        assert_eq!((&*active.http_path, active.https_sni.as_deref()), ("/up", Some("s.test")));
        assert!(!active.https_verify_certificate);
        assert_eq!(*active.headers, [("x-a".to_owned(), vec!["1".to_owned(), "2".to_owned()])]);
        assert_eq!((active.healthy_interval_ms, active.unhealthy_interval_ms), (2000, 1));
        assert!(active.healthy_statuses.contains(200) && active.unhealthy_statuses.contains(500));
        assert_eq!(active.limits, Limits { successes: 4, tcp_failures: 5, http_failures: 6, timeouts: 7 });
        assert!(checks.passive.healthy_statuses.contains(201) && checks.passive.unhealthy_statuses.contains(503));
        assert_eq!(checks.passive.limits, Limits { successes: 1, tcp_failures: 2, http_failures: 3, timeouts: 255 });
        assert_eq!(checks.trial_after_ms, Some(9));
    }
}
