//! The real binary in a prefix of its own.
//! Always: it is stopped with the test; when the test fails, what it logged is shown.

use std::fs::OpenOptions;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::Driver;
use crate::harness::PATIENCE;
use crate::harness::client::Client;
use crate::harness::client::Response;
use crate::harness::eventually;
use crate::harness::port::Port;
use crate::harness::process::Process;

const LOG_BYTES_SHOWN: usize = 16 << 10;

/// A node.
pub struct Gateway {
    prefix: TempDir,
    driver: Option<Driver>,
    settings: Vec<(String, String)>,
    process: Option<Process>,
    /// Port of the proxy, chosen by the kernel at each start.
    pub proxy: u16,
    /// Port of the Admin API, always the same.
    pub admin: u16,
    _admin_port: Port,
}

impl Gateway {
    /// Starts a node with two workers and waits until it serves.
    #[track_caller]
    pub fn start(driver: Driver) -> Self {
        Self::with(driver, &[])
    }

    /// As [`Gateway::start`], with settings over those of the tests.
    #[track_caller]
    pub fn with(driver: Driver, settings: &[(&str, &str)]) -> Self {
        let mut gateway = Self::unstarted(driver, settings);
        gateway.restart();
        gateway
    }

    /// A node that does not run yet.
    pub fn unstarted(driver: Driver, settings: &[(&str, &str)]) -> Self {
        let admin_port = Port::reserve();
        let admin_listen = format!("127.0.0.1:{}, unix:admin.sock", admin_port.number);
        let basic = [
            ("proxy_listen", "127.0.0.1:0"),
            ("admin_listen", admin_listen.as_str()),
            ("status_listen", "off"),
            ("workers", "2"),
            ("log_level", "info"),
        ];
        let settings = basic.iter().chain(settings).map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let prefix = tempfile::Builder::new().prefix("ringway-it-").tempdir().expect("temporary files can be made");
        Self {
            prefix,
            driver: Some(driver),
            settings,
            process: None,
            proxy: 0,
            admin: admin_port.number,
            _admin_port: admin_port,
        }
    }

    /// Directory of the node.
    pub fn prefix(&self) -> &Path {
        self.prefix.path()
    }

    /// The Admin API's unix socket.
    pub fn socket(&self) -> PathBuf {
        self.prefix().join("admin.sock")
    }

    /// The configuration file; read if the test has written it.
    pub fn file(&self) -> PathBuf {
        self.prefix().join("test.conf")
    }

    /// Leaves the choice of the driver to the settings.
    pub fn choose_no_driver(&mut self) {
        self.driver = None;
    }

    /// The command `ringway NAME` for this node, without anything of the environment that would change its settings.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            if text.starts_with("RINGWAY_") || text.starts_with("KONG_") {
                command.env_remove(&variable);
            }
        }
        command.arg(name).arg("-p").arg(self.prefix());
        if let Some(driver) = self.driver {
            command.env("RINGWAY_DRIVER", driver.name());
        }
        if self.file().exists() {
            command.arg("-c").arg(self.file());
        }
        command
    }

    /// Runs a command for this node to its end, with the flags that it was started with.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments[0]);
        for (name, value) in &self.settings {
            command.arg("--set").arg(format!("{name}={value}"));
        }
        command.args(&arguments[1..]).output().expect("the program can be run")
    }

    /// Starts the process; does not wait for it to serve.
    #[track_caller]
    pub fn spawn(&mut self) {
        self.spawn_with(|_| {});
    }

    /// As [`Gateway::spawn`], with a last word about the command.
    #[track_caller]
    pub fn spawn_with(&mut self, prepare: impl FnOnce(&mut Command)) {
        let log = OpenOptions::new().create(true).append(true).open(self.prefix().join("stderr.log"));
        let log = log.expect("the prefix can be written to");
        let mut command = self.command("start");
        for (name, value) in &self.settings {
            command.arg("--set").arg(format!("{name}={value}"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        prepare(&mut command);
        self.process = Some(Process::start(&mut command));
    }

    /// Starts the process, after an end too, and waits until the Admin API answers.
    #[track_caller]
    pub fn restart(&mut self) {
        self.spawn();
        self.wait_until_it_serves();
    }

    /// Waits until the Admin API of a started process answers.
    #[track_caller]
    pub fn wait_until_it_serves(&mut self) {
        let socket = self.socket();
        let mut client = eventually("the admin socket", || {
            let ended = self.process.as_mut().and_then(Process::ended);
            assert!(ended.is_none(), "the gateway ended: {ended:?}\n{}", self.log());
            Client::connect_unix(&socket).ok()
        });
        let about = client.ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").must_be(200).json();
        let listeners = &about["configuration"]["proxy_listeners"];
        self.proxy = listeners[0]["port"].as_u64().unwrap_or(0) as u16;
        assert_ne!(self.proxy, 0, "GET / tells no port of the proxy: {listeners}");
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.running().pid()
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("the gateway was started")
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: i32) {
        self.running().signal(signal);
    }

    /// SIGKILL, and the end of the process.
    pub fn kill(&mut self) {
        self.process.as_mut().expect("the gateway was started").kill();
    }

    /// Waits for the end of the process.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let ended = self.process.as_mut().expect("the gateway was started").wait(PATIENCE);
        ended.unwrap_or_else(|| panic!("the gateway goes on\n{}", self.log()))
    }

    /// What it wrote to standard error, the end of it.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.prefix().join("stderr.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_BYTES_SHOWN)..]).into_owned()
    }

    /// A new connection to the proxy.
    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(self.proxy)
    }

    /// GET on a new connection to the proxy.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.connect().ask(format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"))
    }

    /// A request to the Admin API over the unix socket, on a connection of its own.
    #[track_caller]
    pub fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        let mut client = self.admin_client();
        client.ask(admin_request(method, path, body))
    }

    /// A connection to the Admin API.
    #[track_caller]
    pub fn admin_client(&self) -> Client {
        Client::connect_unix(&self.socket()).unwrap_or_else(|error| panic!("the admin socket: {error}\n{}", self.log()))
    }

    /// POST that must create something; the entity.
    #[track_caller]
    pub fn create(&self, path: &str, entity: Value) -> Value {
        self.admin("POST", path, Some(&entity)).must_be(201).json()
    }

    /// PATCH that must succeed; the entity.
    #[track_caller]
    pub fn patch(&self, path: &str, change: Value) -> Value {
        self.admin("PATCH", path, Some(&change)).must_be(200).json()
    }

    /// A service on a port of this machine, with the given fields set.
    #[track_caller]
    pub fn service(&self, name: &str, port: u16, fields: Value) -> Value {
        let mut service = json!({"name": name, "host": "127.0.0.1", "port": port});
        merge(&mut service, fields);
        self.create("/services", service)
    }

    /// A service `s` on the port, and a route `r` to it for all paths, with its path kept.
    #[track_caller]
    pub fn proxy_to(&self, port: u16) {
        self.proxy_with(port, json!({}), json!({"strip_path": false}));
    }

    /// As [`Gateway::proxy_to`], with fields of service and route.
    #[track_caller]
    pub fn proxy_with(&self, port: u16, service: Value, route: Value) {
        self.service("s", port, service);
        let mut entity = json!({"name": "r", "paths": ["/"]});
        merge(&mut entity, route);
        self.create("/services/s/routes", entity);
    }
}

fn merge(into: &mut Value, fields: Value) {
    if let (Value::Object(into), Value::Object(fields)) = (into, fields) {
        into.extend(fields);
    }
}

/// A request to the Admin API with a JSON body.
pub fn admin_request(method: &str, path: &str, body: Option<&Value>) -> String {
    let body = body.map(Value::to_string);
    let fields = match &body {
        Some(text) => format!("Content-Type: application/json\r\nContent-Length: {}\r\n", text.len()),
        None => String::new(),
    };
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{}", body.unwrap_or_default())
}

impl Drop for Gateway {
    /// A panic inside the gateway is caught there and costs a connection; here it fails whatever test it happened in.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(!self.log().contains("panicked at"), "the gateway panicked:\n{}", self.log());
        } else {
            eprintln!("---- the gateway's log ({:?}) ----\n{}----", self.driver, self.log());
        }
    }
}
