//! A real Redis on a reserved port, that can be stopped, halted and started again.
//! Always: it keeps nothing on disk, and is spoken to in its own protocol.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::process::Stdio;

use tempfile::TempDir;

use crate::harness::PATIENCE;
use crate::harness::eventually;
use crate::harness::nginx::PATH;
use crate::harness::port::Port;
use crate::harness::process::Process;

/// One Redis, running or stopped, always at the same port.
pub struct Redis {
    port: Port,
    directory: TempDir,
    arguments: Vec<String>,
    process: Option<Process>,
}

impl Redis {
    /// Starts it.
    #[track_caller]
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts it with further arguments.
    #[track_caller]
    pub fn with(arguments: &[&str]) -> Self {
        let mut redis = Self::unstarted(arguments);
        redis.start_again();
        redis
    }

    /// One that does not run yet.
    pub fn unstarted(arguments: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("ringway-redis-").tempdir();
        Self {
            port: Port::reserve(),
            directory: directory.expect("temporary files can be made"),
            arguments: arguments.iter().map(|argument| argument.to_string()).collect(),
            process: None,
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// Starts it at the same port as before, empty, and waits until it answers.
    #[track_caller]
    pub fn start_again(&mut self) {
        // The server is the same program as the checker of its files, which comes without a service of the system's.
        let mut command = Command::new("redis-check-rdb");
        command.arg0("redis-server").env("PATH", PATH).current_dir(self.directory.path());
        command.args(["--port", &self.port.number.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no"]).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::start(&mut command);
        eventually("redis to answer", || {
            assert!(process.ended().is_none(), "redis ended (tools/test installs redis-tools)");
            TcpStream::connect(("127.0.0.1", self.port.number)).ok()
        });
        self.process = Some(process);
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Halts it: it takes connections and says nothing.
    pub fn halt(&self) {
        self.process.as_ref().expect("it runs").signal(libc::SIGSTOP);
    }

    /// Lets a halted one go on.
    pub fn go_on(&self) {
        self.process.as_ref().expect("it runs").signal(libc::SIGCONT);
    }

    /// Gives a command; the answer's first line, or the text that it announces.
    #[track_caller]
    pub fn command(&self, words: &[&str]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port.number)).expect("redis runs");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let mut text = format!("*{}\r\n", words.len());
        for word in words {
            text += &format!("${}\r\n{word}\r\n", word.len());
        }
        stream.write_all(text.as_bytes()).expect("redis takes what is sent");
        let mut answer = BufReader::new(stream);
        let mut line = String::new();
        answer.read_line(&mut line).expect("redis answers");
        let line = line.trim_end();
        let Some(length) = line.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok()) else {
            return line.to_owned();
        };
        let mut text = vec![0; length];
        answer.read_exact(&mut text).expect("redis says all of it");
        String::from_utf8_lossy(&text).into_owned()
    }
}
