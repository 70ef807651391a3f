//! The whole gateway from outside: the real binary, curl, nginx and scripted peers.
//! One file for each theme, one test for each behaviour; what they share is in `harness`.

mod harness;

mod acknowledged;
mod admin_access;
mod authentication;
mod bad_input;
mod balancing;
mod bodies;
mod broken_upstreams;
mod config_command;
mod deck;
mod departures;
mod dnsmasq;
mod error_templates;
mod explain;
mod faults;
mod forwarding;
mod golden;
mod golden_admin;
mod golden_logs;
mod golden_proxy;
mod health;
mod ldap;
mod lifecycle;
mod load;
mod logs;
mod mixes;
mod names;
mod oauth2;
mod parking;
mod patience;
mod plugins;
mod prometheus;
mod proxy_protocol;
mod rate_limiting;
mod request_debugging;
mod sessions;
mod shipping;
mod slow_clients;
mod smuggling;
mod splits;
mod spooled_bodies;
mod upstream_connections;
mod walkthrough;
mod websocket;
