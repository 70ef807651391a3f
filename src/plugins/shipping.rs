//! Where plugins send the records of finished requests: what their configurations say, for the control plane to act on.
//! Never: sends anything.

use std::time::Duration;

use crate::plugins::Plugin;
use crate::plugins::datadog::Datadog;
use crate::plugins::file_log::FileLog;
use crate::plugins::http_log::HttpLog;
use crate::plugins::loggly::Loggly;
use crate::plugins::moesif::Moesif;
use crate::plugins::opentelemetry::Collector;
use crate::plugins::statsd::Statsd;
use crate::plugins::syslog::Syslog;
use crate::plugins::tcp_log::TcpLog;
use crate::plugins::zipkin::Zipkin;

/// A destination. A new one is a variant and a sink of the control plane.
#[derive(Debug, Clone, PartialEq)]
pub enum Shipping {
    Datadog(Datadog),
    File(FileLog),
    Http(HttpLog),
    Loggly(Loggly),
    OpenTelemetry(Collector),
    Moesif(Moesif),
    Statsd(Statsd),
    Syslog(Syslog),
    Tcp(TcpLog),
    Udp(Udp),
    Zipkin(Zipkin),
}

/// Where datagrams go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Udp {
    pub host: Box<str>,
    pub port: u16,
    /// Of finding the address and sending.
    pub timeout: Duration,
}

/// A plugin that does nothing but ship.
pub(super) struct Ships(pub Shipping);

impl Plugin for Ships {
    fn ships(&self) -> Option<&Shipping> {
        Some(&self.0)
    }
}
