//! The recorded exchanges of `tests/data/proxy.jsonl`, one JSON object per line.
//! Owns: the way back from what was shortened and escaped to the bytes that were sent.

use serde_json::Value;

/// What was cut out of long texts: `yyy<...6000 bytes in all>`.
const CUT: (&str, &str) = ("<...", " bytes in all>");
/// The end of the raw requests that were cut.
const RAW_TAIL: &str = " HTTP/1.1\r\nHost: a\r\n\r\n";

/// One recorded exchange.
pub struct Record {
    pub seq: u64,
    pub name: String,
    pub router_flavor: String,
    /// Declarative configuration under which it was recorded.
    pub config: Value,
    pub request: Value,
    pub response: Value,
    /// What reached the upstream; null when that was not recorded or nothing did.
    pub upstream: Value,
    /// What file-log wrote of the exchange before it; null for exchanges.
    pub log_line: Value,
    /// About how long the exchange took, where it was long.
    pub elapsed_s: Option<f64>,
}

impl Record {
    /// All of them, in the order in which they were recorded.
    pub fn all() -> Vec<Self> {
        include_str!("../../data/proxy.jsonl").lines().map(Self::parse).collect()
    }

    fn parse(line: &str) -> Self {
        let mut fields: Value = serde_json::from_str(line).expect("a record is JSON");
        let mut take = |name: &str| fields.get_mut(name).map(Value::take).unwrap_or_default();
        let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            seq: take("seq").as_u64().expect("a record has a number"),
            name: text(take("name")),
            router_flavor: text(take("router_flavor")),
            config: take("config"),
            request: take("request"),
            response: take("response"),
            upstream: take("upstream"),
            log_line: take("log_line"),
            elapsed_s: take("elapsed_s_about").as_f64(),
        }
    }

    /// The first part of its name.
    pub fn group(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// The method; GET for raw requests, whose responses are read like those of GET.
    pub fn method(&self) -> &str {
        self.request["method"].as_str().unwrap_or("GET")
    }

    /// The same exchange had the other of the two echo servers answered it.
    pub fn with_echoes_swapped(&self) -> Self {
        let swap = |value: &Value| {
            let text = value.to_string().replace("<echo_port>", "<other>");
            let text = text.replace("<echo2_port>", "<echo_port>").replace("<other>", "<echo2_port>");
            serde_json::from_str(&text).expect("only texts were replaced")
        };
        Self {
            seq: self.seq,
            name: self.name.clone(),
            router_flavor: self.router_flavor.clone(),
            config: self.config.clone(),
            request: self.request.clone(),
            response: swap(&self.response),
            upstream: swap(&self.upstream),
            log_line: self.log_line.clone(),
            elapsed_s: self.elapsed_s,
        }
    }

    /// The bytes that were sent; `put_in` replaces the placeholders.
    pub fn request_bytes(&self, put_in: impl Fn(&str) -> String) -> Vec<u8> {
        if let Some(raw) = self.request["raw"].as_str() {
            return latin1(&put_in(&whole(raw, RAW_TAIL)));
        }
        let path = self.request["path"].as_str().unwrap_or_default();
        let mut text = format!("{} {path} HTTP/1.1\r\n", self.method());
        for (name, value) in pairs(&self.request["headers"]) {
            text.push_str(&format!("{name}: {}\r\n", whole(value, "")));
        }
        text.push_str("\r\n");
        text.push_str(&whole(self.request["body"].as_str().unwrap_or_default(), ""));
        latin1(&put_in(&text))
    }
}

/// Recorded header pairs.
pub fn pairs(headers: &Value) -> impl Iterator<Item = (&str, &str)> {
    let list = headers.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|pair| (pair[0].as_str().unwrap_or_default(), pair[1].as_str().unwrap_or_default()))
}

/// A text in its full length: what was cut out is the character before the cut, repeated; `tail` followed it.
pub fn whole(text: &str, tail: &str) -> String {
    let cut = || {
        let (before, mark) = text.split_once(CUT.0)?;
        let bytes: usize = mark.strip_suffix(CUT.1)?.parse().ok()?;
        Some((before, before.chars().last()?, bytes))
    };
    match cut() {
        Some((before, last, bytes)) => {
            let missing = bytes - before.len() - tail.len();
            [before, &last.to_string().repeat(missing), tail].concat()
        }
        None => text.to_owned(),
    }
}

/// Bytes were recorded as the characters of the same numbers.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("a recorded character stands for a byte")).collect()
}
