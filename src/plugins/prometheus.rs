//! HOT: three lookups at most and some adds; nothing is allocated for a series that is known.
//! prometheus: what `GET /metrics` tells of requests (spec/plugins.md G.3).
//! Never: makes a text; that is the Admin API's. There are neither plugins for AI nor filters in WebAssembly here, so that
//! `ai_metrics` and `wasm_metrics` have nothing to tell, as in a Kong without them.

use serde_json::Map;
use serde_json::Value;

use crate::entity::PROTOCOLS_ANY;
use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::metrics::series::Of;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::settings;
use crate::plugins::view::LogView;

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "prometheus",
        &[
            Field::boolean("per_consumer").default_bool(false),
            Field::boolean("status_code_metrics").default_bool(false),
            Field::boolean("ai_metrics").default_bool(false),
            Field::boolean("latency_metrics").default_bool(false),
            Field::boolean("bandwidth_metrics").default_bool(false),
            // Read at each scrape, by the Admin API.
            Field::boolean("upstream_health_metrics").default_bool(false),
            Field::boolean("wasm_metrics").default_bool(false),
        ],
    )
    .protocols(PROTOCOLS_ANY),
    priority: 13,
    build,
};

struct Prometheus {
    per_consumer: bool,
    status_codes: bool,
    latencies: bool,
    bandwidth: bool,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    Ok(Box::new(Prometheus {
        per_consumer: settings::flag(config, "per_consumer"),
        status_codes: settings::flag(config, "status_code_metrics"),
        latencies: settings::flag(config, "latency_metrics"),
        bandwidth: settings::flag(config, "bandwidth_metrics"),
    }))
}

impl Plugin for Prometheus {
    fn log(&self, view: &mut LogView<'_>) {
        let Some(route) = view.route else { return };
        let anybody = Of { route: route.id, service: view.service.map(|service| service.id), consumer: None };
        let of = Of { consumer: view.identity.consumer.filter(|_| self.per_consumer), ..anybody };
        let series = &view.core.series;
        if self.status_codes {
            series.count_request(of, view.status, view.from_upstream);
        }
        if self.bandwidth {
            series.count_bytes(of, view.figures.request_bytes, view.figures.response_bytes);
        }
        if self.latencies {
            let figures = &view.figures;
            series.observe(anybody, figures.gateway_us, figures.upstream_us, figures.total_us);
        }
    }
}
