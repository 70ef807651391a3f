//! http-log: one JSON object per request, or an array of them, to a server (spec/plugins.md F.3).

use std::sync::Arc;

use hyper::body::Bytes;

use crate::control::ship::World;
use crate::control::ship::http::Ask;
use crate::control::ship::http::Patience;
use crate::control::ship::http::Server;
use crate::control::ship::outlet::Way;
use crate::control::ship::outlet::as_json;
use crate::control::ship::queue::Deliver;
use crate::control::ship::queue::Delivery;
use crate::plugins::http_log::HttpLog;

pub fn way(config: &HttpLog, world: &World) -> Way {
    let step = config.timeout;
    let patience = Patience { connect: step, send: step, read: step, keepalive: config.keepalive };
    let mut headers = config.headers.clone();
    headers.push(("Content-Type".to_owned(), config.content_type.to_string()));
    let deliver =
        Poster { server: Server::new(&config.endpoint, false, patience, world), headers, config: config.clone() };
    Way { rules: config.queue, deliver: Arc::new(deliver), format: as_json() }
}

struct Poster {
    server: Server,
    config: HttpLog,
    headers: Vec<(String, String)>,
}

impl Deliver for Poster {
    fn deliver<'a>(&'a self, batch: &'a [Bytes]) -> Delivery<'a> {
        Box::pin(async move {
            let body = match batch {
                [one] if self.config.queue.batch_max == 1 || self.config.queue.each_alone => one.clone(),
                many => json_array(many),
            };
            let (method, target) = (&*self.config.method, &*self.config.endpoint.path);
            let status = self.server.ask(&Ask { method, target, headers: &self.headers, body }).await?;
            match status.as_u16() {
                ..300 => Ok(()),
                status => Err(format!("the server answered {status}")),
            }
        })
    }
}

/// JSON texts as a JSON array.
pub fn json_array(entries: &[Bytes]) -> Bytes {
    let mut array = Vec::with_capacity(entries.iter().map(|entry| entry.len() + 1).sum::<usize>() + 2);
    for entry in entries {
        array.push(if array.is_empty() { b'[' } else { b',' });
        array.extend_from_slice(entry);
    }
    array.push(b']');
    array.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_become_an_array() {
        let entries = ["1", "{}"].map(|text| Bytes::copy_from_slice(text.as_bytes()));
        assert_eq!(json_array(&entries), "[1,{}]");
        assert_eq!(json_array(&entries[..1]), "[1]");
    }
}
