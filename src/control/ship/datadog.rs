//! Lines of DogStatsD to an agent (spec/plugins.md G.2).

use std::sync::Arc;
use std::time::Duration;

use crate::control::ship::World;
use crate::control::ship::outlet::Way;
use crate::control::ship::seen::Seen;
use crate::control::ship::statsd::Packets;
use crate::control::ship::statsd::clean;
use crate::control::ship::statsd::simple;
use crate::control::ship::udp::Datagrams;
use crate::limits;
use crate::metrics::full_record::Shipment;
use crate::plugins::datadog::Datadog;
use crate::plugins::datadog::Metric;
use crate::plugins::shipping::Udp;

pub fn way(config: &Datadog, world: &World) -> Way {
    let timeout = Duration::from_millis(limits::SHIP_STATS_TIMEOUT_MS);
    let datagrams = Datagrams::new(&Udp { host: config.host.clone(), port: config.port, timeout }, world);
    let (rules, config) = (config.queue, config.clone());
    let format = Box::new(move |seen: &Seen<'_>, _: &Shipment<'_>| {
        let lines: Vec<String> =
            config.metrics.iter().filter_map(|metric| line(&config, metric, seen, fastrand::f64())).collect();
        (!lines.is_empty()).then(|| lines.join("\n").into())
    });
    Way { rules, deliver: Arc::new(Packets { datagrams, bytes_max: 0 }), format }
}

/// The line of a metric; `roll` is a random number from 0 to 1.
fn line(config: &Datadog, metric: &Metric, seen: &Seen<'_>, roll: f64) -> Option<String> {
    let rate = match metric.stat.sample_rate {
        Some(rate) if roll >= rate => return None,
        Some(rate) => format!("|@{rate}"),
        None => String::new(),
    };
    let (name, value) = simple(metric.stat.measure, seen)?;
    let service = seen.service.as_ref().and_then(|service| service.text("name").or_else(|| service.text("host")));
    let consumer = metric.consumer.and_then(|by| seen.consumer.as_ref()?.text(by.field()));
    let Datadog { prefix, service_tag, status_tag, consumer_tag, .. } = config;
    let mut tags = vec![
        format!("{service_tag}:{}", clean(service.unwrap_or_default()).replace('.', "_")),
        format!("{status_tag}:{}", seen.record.figures.status),
    ];
    tags.extend(consumer.map(|consumer| format!("{consumer_tag}:{}", clean(consumer))));
    tags.extend(metric.tags.iter().cloned());
    Some(format!("{prefix}.{name}:{value}|{}{rate}|#{}", metric.stat.letters, tags.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ship::log_record::tests::figures;
    use crate::control::ship::log_record::tests::full_record;
    use crate::control::ship::log_record::tests::with_seen;
    use crate::plugins::PLUGINS;
    use crate::plugins::shipping::Shipping;
    use serde_json::json;

    #[test]
    fn a_line_has_tags_of_service_status_consumer_and_metric() {
        let kind = PLUGINS.iter().find(|kind| kind.schema.name == "datadog").expect("there is datadog");
        let metrics = json!([
            { "name": "request_count", "stat_type": "counter", "sample_rate": 0.5, "tags": ["app:kong"],
              "consumer_identifier": "username" },
            { "name": "latency", "stat_type": "distribution" },
        ]);
        let config = json!({ "metrics": metrics });
        let built = (kind.build)(config.as_object().expect("an object")).unwrap_or_else(|_| panic!("a good one"));
        let Some(Shipping::Datadog(config)) = built.ships() else { panic!("datadog ships to Datadog") };
        let told = |at: usize, roll| with_seen(&full_record(figures()), |s| line(config, &config.metrics[at], s, roll));
        let want = "kong.request.count:1|c|@0.5|#name:s,status:200,consumer:al,app:kong";
        assert_eq!(told(0, 0.4).as_deref(), Some(want));
        assert_eq!(told(0, 0.5), None);
        assert_eq!(told(1, 0.9).as_deref(), Some("kong.latency:9|d|#name:s,status:200"));
    }
}
