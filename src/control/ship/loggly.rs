//! loggly: the log record behind a syslog head, in a datagram (spec/plugins.md F.3).

use std::sync::Arc;

use crate::control::ship::World;
use crate::control::ship::outlet::Way;
use crate::control::ship::seen::Seen;
use crate::control::ship::udp::Datagrams;
use crate::control::ship::when::When;
use crate::metrics::full_record::Shipment;
use crate::plugins::loggly::Loggly;
use crate::plugins::queue::QueueRules;

/// The number of facility `user`, as it stands in a priority.
const USER: u8 = 1 << 3;

pub fn way(config: &Loggly, world: &World) -> Way {
    let deliver = Arc::new(Datagrams::new(&config.to, world));
    let config = config.clone();
    let format = Box::new(move |seen: &Seen<'_>, _: &Shipment<'_>| {
        let severity = config.severities.of_status(seen.record.figures.status)?;
        let mut datagram = head(&config, severity, seen).into_bytes();
        datagram.extend_from_slice(&seen.json());
        Some(datagram.into())
    });
    Way { rules: QueueRules::plain(1), deliver, format }
}

fn head(config: &Loggly, severity: u8, seen: &Seen<'_>) -> String {
    let f = &seen.record.figures;
    let when = When::of_unix_us(f.started_unix_us + f.total_us);
    let tags: String = config.tags.iter().map(|tag| format!(" tag=\"{tag}\"")).collect();
    let (hostname, key) = (&seen.node.hostname, &config.key);
    format!("<{}>1 {} {hostname} kong - - [{key}@41058{tags}] ", USER + severity, when.to_rfc3339())
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
    fn the_head_tells_priority_time_host_key_and_tags() {
        let kind = PLUGINS.iter().find(|kind| kind.schema.name == "loggly").expect("there is loggly");
        let config = json!({ "key": "k-1", "tags": ["a", "b"] });
        let built = (kind.build)(config.as_object().expect("an object")).unwrap_or_else(|_| panic!("a good one"));
        let Some(Shipping::Loggly(config)) = built.ships() else { panic!("loggly ships to Loggly") };
        let got = with_seen(&full_record(figures()), |seen| head(config, 4, seen));
        assert_eq!(got, r#"<12>1 2023-11-14T22:13:20Z host kong - - [k-1@41058 tag="a" tag="b"] "#);
    }
}
