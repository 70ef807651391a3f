//! A real name server, on a reserved port: dnsmasq with the records that the test wants.
//! Always: it knows nothing but the domain `test`, and every record lives for a second.

use std::net::UdpSocket;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::eventually;
use crate::harness::nginx::PATH;
use crate::harness::port::Port;
use crate::harness::process::Process;

/// One dnsmasq, running or stopped, always at the same port.
pub struct Dnsmasq {
    port: Port,
    directory: TempDir,
    process: Option<Process>,
}

impl Dnsmasq {
    /// Starts it without a record.
    #[track_caller]
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("ringway-dnsmasq-").tempdir();
        let mut dnsmasq =
            Self { port: Port::reserve(), directory: directory.expect("temporary files can be made"), process: None };
        dnsmasq.write("hosts", "");
        dnsmasq.write("records", "");
        dnsmasq.start_again();
        dnsmasq
    }

    /// Its address, as `dns_resolver` takes it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number)
    }

    /// Sets all A and AAAA records, as lines of a hosts file; they count at once.
    #[track_caller]
    pub fn set_hosts(&self, lines: &str) {
        self.write("hosts", lines);
        if let Some(process) = &self.process {
            process.signal(libc::SIGHUP);
        }
    }

    /// Sets all SRV records, as `(name, target, port, priority, weight)`; they count from the next start.
    #[track_caller]
    pub fn set_services(&self, records: &[(&str, &str, u16, u16, u16)]) {
        let line = |(name, target, port, priority, weight): &(&str, &str, u16, u16, u16)| {
            format!("srv-host={name},{target},{port},{priority},{weight}\n")
        };
        self.write("records", &records.iter().map(line).collect::<String>());
    }

    /// Kills it; questions are answered by nobody from then on.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it at the same port as before, and waits until it answers.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.process = None;
        let mut command = Command::new("dnsmasq");
        command.env("PATH", PATH).args(["--keep-in-foreground", "--user=root", "--pid-file="]);
        command.args(["--no-resolv", "--no-hosts", "--local=/test/", "--local-ttl=1"]);
        command.args(["--listen-address=127.0.0.1", "--bind-interfaces"]).arg(format!("--port={}", self.port.number));
        for (option, file) in [("addn-hosts", "hosts"), ("conf-file", "records"), ("log-facility", "log")] {
            command.arg(format!("--{option}={}", self.directory.path().join(file).display()));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::start(&mut command);
        eventually("dnsmasq to answer", || {
            assert!(process.ended().is_none(), "dnsmasq ended (tools/test installs it); its log:\n{}", self.log());
            self.answers().then_some(())
        });
        self.process = Some(process);
    }

    fn answers(&self) -> bool {
        let Ok(socket) = UdpSocket::bind("127.0.0.1:0") else { return false };
        // A question for the A records of `x.test`.
        let question = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01x\x04test\0\0\x01\0\x01";
        let _ = socket.set_read_timeout(Some(Duration::from_millis(100)));
        let asked = socket.connect(("127.0.0.1", self.port.number)).and_then(|()| socket.send(question));
        asked.is_ok() && socket.recv(&mut [0; 512]).is_ok()
    }

    #[track_caller]
    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.directory.path().join(file), text).expect("its directory can be written to");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}
