//! Lines of statsd, over UDP or TCP (spec/plugins.md G.1).
//! Always: what names contain cannot end a line or a field early.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;

use crate::control::ship::World;
use crate::control::ship::log_record::WORKSPACE;
use crate::control::ship::log_record::WORKSPACE_NAME;
use crate::control::ship::log_record::latencies;
use crate::control::ship::outlet::Way;
use crate::control::ship::queue::Deliver;
use crate::control::ship::queue::Delivery;
use crate::control::ship::seen::Known;
use crate::control::ship::seen::Seen;
use crate::control::ship::tcp::Lines;
use crate::control::ship::udp::Datagrams;
use crate::limits;
use crate::metrics::full_record::Shipment;
use crate::plugins::shipping::Udp;
use crate::plugins::stats::Measure;
use crate::plugins::statsd::Metric;
use crate::plugins::statsd::ServiceBy;
use crate::plugins::statsd::Statsd;
use crate::plugins::statsd::TagStyle;
use crate::plugins::statsd::WorkspaceBy;
use crate::plugins::tcp_log::TcpLog;

pub fn way(config: &Statsd, world: &World) -> Way {
    let timeout = Duration::from_millis(limits::SHIP_STATS_TIMEOUT_MS);
    let (host, port) = (config.host.clone(), config.port);
    let deliver: Arc<dyn Deliver> = if config.tcp {
        let to = TcpLog { host, port, timeout, keepalive: Duration::MAX, tls_name: None };
        Arc::new(Lines::new(&to, world))
    } else {
        let datagrams = Datagrams::new(&Udp { host, port, timeout }, world);
        Arc::new(Packets { datagrams, bytes_max: config.packet_bytes })
    };
    let rules = config.queue;
    let config = config.clone();
    let format = Box::new(move |seen: &Seen<'_>, _: &Shipment<'_>| {
        let lines = lines(&config, seen, &mut fastrand::f64);
        (!lines.is_empty()).then(|| lines.into())
    });
    Way { rules, deliver, format }
}

/// Lines in datagrams.
pub struct Packets {
    pub datagrams: Datagrams,
    /// 0: every line has a datagram of its own.
    pub bytes_max: usize,
}

impl Deliver for Packets {
    fn deliver<'a>(&'a self, batch: &'a [Bytes]) -> Delivery<'a> {
        Box::pin(async move {
            for packet in packets(batch, self.bytes_max) {
                self.datagrams.send(&packet).await?;
            }
            Ok(())
        })
    }
}

/// The lines of all entries, as many together as fit into a packet.
fn packets(batch: &[Bytes], bytes_max: usize) -> Vec<Vec<u8>> {
    let mut packets = Vec::<Vec<u8>>::new();
    for line in batch.iter().flat_map(|entry| entry.split(|&byte| byte == b'\n')) {
        match packets.last_mut() {
            Some(packet) if packet.len() + 1 + line.len() <= bytes_max => {
                packet.push(b'\n');
                packet.extend_from_slice(line);
            }
            _ => packets.push(line.to_vec()),
        }
    }
    packets
}

/// The lines of a record, joined by line feeds. `roll` gives random numbers from 0 to 1.
fn lines(config: &Statsd, seen: &Seen<'_>, roll: &mut dyn FnMut() -> f64) -> String {
    let status = seen.record.figures.status;
    let is_told =
        config.statuses.is_empty() || config.statuses.iter().any(|(from, to)| (*from..=*to).contains(&status));
    if !is_told {
        return String::new();
    }
    let mut lines = Vec::new();
    for metric in &config.metrics {
        if metric.stat.sample_rate.is_some_and(|rate| roll() >= rate) {
            continue;
        }
        let (letters, rate) = (metric.stat.letters, metric.stat.sample_rate);
        let rate = rate.map(|rate| format!("|@{rate}")).unwrap_or_default();
        let name_and_value = match config.tags {
            None => plain(config, metric, seen).map(|(name, value)| (name, value, String::new())),
            Some(style) => tagged(config, metric, seen, style),
        };
        if let Some((name, value, tags)) = name_and_value {
            lines.push(format!("{name}:{value}|{letters}{rate}{tags}"));
        }
    }
    lines.join("\n")
}

/// Name and value; `None`: there is nothing to tell.
fn plain(config: &Statsd, metric: &Metric, seen: &Seen<'_>) -> Option<(String, String)> {
    let prefix = prefix(config, seen);
    let scope = match &seen.service {
        Some(service) => {
            format!("{prefix}.service.{}", clean(&service_name(service, metric.service)).replace('.', "_"))
        }
        None => format!("{prefix}.global.unmatched"),
    };
    let status = seen.record.figures.status;
    let consumer = || seen.consumer.as_ref()?.text(metric.consumer.field()).map(clean);
    let one = || "1".to_owned();
    Some(match metric.stat.measure {
        Measure::StatusCount => (format!("{scope}.status.{status}"), one()),
        Measure::UniqueUsers => (format!("{scope}.user.uniques"), consumer()?),
        Measure::RequestPerUser => (format!("{scope}.user.{}.request.count", consumer()?), one()),
        Measure::StatusCountPerUser => (format!("{scope}.user.{}.status.{status}", consumer()?), one()),
        Measure::StatusCountPerWorkspace => {
            (format!("{scope}.workspace.{}.status.{status}", workspace(metric.workspace)), one())
        }
        Measure::StatusCountPerUserPerRoute => {
            let route = seen.route.as_ref()?.text("id")?;
            (format!("{prefix}.route.{route}.user.{}.status.{status}", consumer()?), one())
        }
        measure => {
            let (name, value) = simple(measure, seen)?;
            (format!("{scope}.{name}"), value.to_string())
        }
    })
}

/// Name, value and what stands behind them; figures that tags tell apart are left out.
fn tagged(config: &Statsd, metric: &Metric, seen: &Seen<'_>, style: TagStyle) -> Option<(String, String, String)> {
    let (name, value) = simple(metric.stat.measure, seen)?;
    let name = format!("{}.{name}", prefix(config, seen));
    let route = seen.route.as_ref().and_then(|route| route.text("name").or_else(|| route.text("id")));
    let consumer = seen.consumer.as_ref().and_then(|consumer| consumer.text(metric.consumer.field()));
    let tags = [
        ("service", seen.service.as_ref().map(|service| service_name(service, metric.service))),
        ("route", route.map(str::to_owned)),
        ("workspace", Some(workspace(metric.workspace).to_owned())),
        ("consumer", consumer.map(str::to_owned)),
        ("node", Some(seen.node.hostname.clone())),
        ("status", Some(seen.record.figures.status.to_string())),
    ];
    let joined = |between: char| {
        let tags = tags.iter().filter_map(|(key, value)| Some(format!("{key}{between}{}", clean(value.as_ref()?))));
        tags.collect::<Vec<_>>().join(",")
    };
    let value = value.to_string();
    Some(match style {
        TagStyle::Dogstatsd => (name, value, format!("|#{}", joined(':'))),
        TagStyle::Influxdb => (format!("{name},{}", joined('=')), value, String::new()),
        TagStyle::Librato => (format!("{name}#{}", joined('=')), value, String::new()),
        TagStyle::Signalfx => (format!("{name}[{}]", joined('=')), value, String::new()),
    })
}

/// The figures that are numbers: name and value.
pub fn simple(measure: Measure, seen: &Seen<'_>) -> Option<(&'static str, u64)> {
    let (figures, latencies) = (&seen.record.figures, latencies(seen.record));
    Some(match measure {
        Measure::RequestCount => ("request.count", 1),
        Measure::Latency => ("latency", latencies.request),
        Measure::RequestSize => ("request.size", figures.request_bytes),
        Measure::ResponseSize => ("response.size", figures.response_bytes),
        Measure::UpstreamLatency => ("upstream_latency", u64::try_from(latencies.proxy).ok()?),
        Measure::KongLatency => ("kong_latency", latencies.kong),
        _ => return None,
    })
}

fn prefix(config: &Statsd, seen: &Seen<'_>) -> String {
    match config.hostname_in_prefix {
        true => format!("{}.node.{}", config.prefix, clean(&seen.node.hostname).replace('.', "_")),
        false => config.prefix.to_string(),
    }
}

fn service_name(service: &Known, by: ServiceBy) -> String {
    let told = match by {
        ServiceBy::Id => service.text("id"),
        ServiceBy::Name => service.text("name"),
        ServiceBy::Host => service.text("host"),
        ServiceBy::NameOrHost => service.text("name").or_else(|| service.text("host")),
    };
    told.unwrap_or("unnamed").to_owned()
}

fn workspace(by: WorkspaceBy) -> &'static str {
    match by {
        WorkspaceBy::Id => WORKSPACE,
        WorkspaceBy::Name => WORKSPACE_NAME,
    }
}

/// A text without the signs of the format.
pub fn clean(text: &str) -> String {
    text.replace(|c: char| c.is_control() || ":|@#,=[] ".contains(c), "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ship::log_record::tests::figures;
    use crate::control::ship::log_record::tests::full_record;
    use crate::control::ship::log_record::tests::with_seen;
    use crate::metrics::full_record::Figures;
    use crate::metrics::full_record::FullRecord;
    use crate::plugins::PLUGINS;
    use crate::plugins::shipping::Shipping;
    use serde_json::Value;
    use serde_json::json;

    fn lines_of(config: Value, record: &FullRecord<'_>) -> Vec<String> {
        let kind = PLUGINS.iter().find(|kind| kind.schema.name == "statsd").expect("there is statsd");
        let mut whole: serde_json::Map<_, _> = [("prefix".to_owned(), json!("kong"))].into_iter().collect();
        for field in kind.schema.config.fields {
            whole.insert(field.name.to_owned(), field.default.map_or(Value::Null, |literal| literal.to_value()));
        }
        whole.extend(config.as_object().expect("an object").clone());
        let built = (kind.build)(&whole).unwrap_or_else(|_| panic!("a good configuration"));
        let Some(Shipping::Statsd(config)) = built.ships() else { panic!("statsd ships to statsd") };
        let text = with_seen(record, |seen| lines(config, seen, &mut || 0.5));
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn all_default_metrics_of_a_request_with_a_consumer() {
        let got = lines_of(json!({ "consumer_identifier_default": "username" }), &full_record(figures()));
        let want = [
            "kong.service.s.request.count:1|c",
            "kong.service.s.latency:9|ms",
            "kong.service.s.request.size:80|c",
            "kong.service.s.status.200:1|c",
            "kong.service.s.response.size:300|c",
            "kong.service.s.user.uniques:al|s",
            "kong.service.s.user.al.request.count:1|c",
            "kong.service.s.upstream_latency:4|ms",
            "kong.service.s.kong_latency:1|ms",
            "kong.service.s.user.al.status.200:1|c",
            &format!("kong.service.s.workspace.{WORKSPACE}.status.200:1|c"),
            "kong.route.00000000-0000-0000-0000-000000000001.user.al.status.200:1|c",
        ];
        assert_eq!(got, want);
    }

    #[test]
    fn without_a_service_and_a_consumer_less_is_told() {
        let own = Figures { consumer: None, first_byte_us: None, ..figures() };
        let got = lines_of(json!({}), &FullRecord { route: b"", service: b"", ..full_record(own) });
        let names: Vec<_> = got.iter().map(|line| line.split(':').next().unwrap_or_default()).collect();
        let at = |name: &str| format!("kong.global.unmatched.{name}");
        let workspace = format!("workspace.{WORKSPACE}.status.200");
        let want =
            ["request.count", "latency", "request.size", "status.200", "response.size", "kong_latency", &workspace];
        assert_eq!(names, want.map(at));
    }

    #[test]
    fn what_a_configuration_says_of_names_statuses_and_samples_holds() {
        let count = |rate: f64| json!([{ "name": "request_count", "stat_type": "counter", "sample_rate": rate }]);
        let record = full_record(figures());
        let with = |more: Value| {
            let mut config = json!({ "metrics": count(1.0), "prefix": "p" });
            config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            lines_of(config, &record)
        };
        assert_eq!(with(json!({ "hostname_in_prefix": true })), ["p.node.host.service.s.request.count:1|c"]);
        let by_host = json!({ "service_identifier_default": "service_host" });
        assert_eq!(with(by_host), ["p.service.up_test.request.count:1|c"]);
        assert!(with(json!({ "allow_status_codes": ["400-499", "500-599"] })).is_empty());
        assert_eq!(with(json!({ "allow_status_codes": ["400-499", "200-204"] })).len(), 1);
        assert!(with(json!({ "metrics": count(0.5) })).is_empty());
        assert_eq!(with(json!({ "metrics": count(0.6) })), ["p.service.s.request.count:1|c|@0.6"]);
    }

    #[test]
    fn tags_stand_as_their_style_wants_them() {
        let tags = |sign: char| {
            ["service,s", "route,r", &format!("workspace,{WORKSPACE}"), "consumer,al", "node,host", "status,200"]
                .map(|tag| tag.replace(',', &sign.to_string()))
                .join(",")
        };
        let metrics = json!([
            { "name": "request_count", "stat_type": "counter", "sample_rate": 1, "consumer_identifier": "username" },
            { "name": "status_count", "stat_type": "counter", "sample_rate": 1 },
        ]);
        for (style, want) in [
            ("dogstatsd", format!("kong.request.count:1|c|#{}", tags(':'))),
            ("influxdb", format!("kong.request.count,{}:1|c", tags('='))),
            ("librato", format!("kong.request.count#{}:1|c", tags('='))),
            ("signalfx", format!("kong.request.count[{}]:1|c", tags('='))),
        ] {
            let config = json!({ "metrics": metrics, "tag_style": style });
            assert_eq!(lines_of(config, &full_record(figures())), [want], "{style}");
        }
    }

    #[test]
    fn lines_share_packets_up_to_their_size() {
        let batch = [Bytes::from_static(b"aa\nbb\nccc"), Bytes::from_static(b"d")];
        let texts = |bytes_max| packets(&batch, bytes_max).into_iter().map(|p| String::from_utf8(p).expect("ASCII"));
        assert_eq!(texts(0).collect::<Vec<_>>(), ["aa", "bb", "ccc", "d"]);
        assert_eq!(texts(5).collect::<Vec<_>>(), ["aa\nbb", "ccc\nd"]);
        assert_eq!(texts(2).collect::<Vec<_>>(), ["aa", "bb", "ccc", "d"]);
    }

    #[test]
    fn names_cannot_break_a_line() {
        assert_eq!(clean("a:b|c@d\ne#f"), "a_b_c_d_e_f");
    }
}
