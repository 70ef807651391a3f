//! kong.conf syntax, environment and flags -> [`Settings`].
//! Owns: the table of every property, how its text is read, which properties of Kong mean nothing here.
//! Never: reads files, the environment or the clock; the caller hands in texts (and what reads files that properties name),
//! so that every case is a table test.
//! Always: all errors of all sources are reported together; a value that parses has an effect.

mod file;
mod foreign;
mod kind;
mod listen;
mod load;
pub mod log_format;
mod logs;
mod nearest;
mod numbers;
mod peers;
mod properties;
mod templates;
mod texts;
mod tokens;
mod tracing;
mod words;

pub use kind::{Kind, Problem};
pub use listen::{Listen, ListenAddr};
pub use load::{ConfigError, Loaded, Origin, Sources, Warning};
pub use logs::AccessLog;
pub use peers::{Cidr, PortMap, TrustedIps, port_seen};
pub use properties::{PROPERTIES, Property, Settings};
pub use templates::ErrorTemplate;
pub use texts::{RealIpSource, Secret, User};
pub use tokens::{RequestHeaders, ResponseHeaders};
pub use tracing::Instrumented;
pub use words::{Database, DnsRecord, Driver, ErrorType, LogLevel, Plugins, RouterFlavor, Workers};
