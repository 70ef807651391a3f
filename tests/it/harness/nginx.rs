//! The demo services of the walk-through: real nginx with its Lua module, on a reserved port.

use std::net::TcpStream;
use std::process::Command;
use std::process::Stdio;

use tempfile::TempDir;

use crate::harness::eventually;
use crate::harness::port::Port;
use crate::harness::process::Process;

const TEMPLATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/demo/upstream.conf");

/// Servers stand outside of the path of ordinary users on Debian.
pub const PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// One nginx, running or stopped, always at the same port.
pub struct Nginx {
    port: Port,
    prefix: TempDir,
    process: Option<Process>,
}

impl Nginx {
    /// Starts it and waits until it listens. `name` is what it says in `X-Served-By`.
    #[track_caller]
    pub fn start(name: &str) -> Self {
        let port = Port::reserve();
        let prefix = tempfile::Builder::new().prefix("ringway-nginx-").tempdir().expect("temporary files can be made");
        let template = std::fs::read_to_string(TEMPLATE).unwrap_or_else(|error| panic!("{TEMPLATE}: {error}"));
        let config = template
            .replace("@PORT@", &port.number.to_string())
            .replace("@NAME@", name)
            .replace("@MODULES@", &modules_directory());
        std::fs::write(prefix.path().join("nginx.conf"), config).expect("the prefix can be written to");
        let mut nginx = Self { port, prefix, process: None };
        nginx.start_again();
        nginx
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// Ends it; its port refuses connections from then on.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it at the same port as before.
    #[track_caller]
    pub fn start_again(&mut self) {
        let mut command = Command::new("nginx");
        command.env("PATH", PATH).arg("-p").arg(self.prefix.path()).args(["-e", "error.log", "-c", "nginx.conf"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::start(&mut command);
        eventually("nginx to listen", || {
            assert!(process.ended().is_none(), "nginx ended; its log:\n{}", self.log());
            TcpStream::connect(("127.0.0.1", self.port())).ok()
        });
        self.process = Some(process);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.prefix.path().join("error.log")).unwrap_or_default()
    }
}

/// nginx says on its own where its modules are.
fn modules_directory() -> String {
    let output = Command::new("nginx").env("PATH", PATH).arg("-V").output();
    let output = output.unwrap_or_else(|error| panic!("nginx is needed (tools/test installs it): {error}"));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let path = text.split_whitespace().find_map(|word| word.strip_prefix("--modules-path="));
    path.expect("nginx was built with modules").to_owned()
}
