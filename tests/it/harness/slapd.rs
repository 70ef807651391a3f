//! A real LDAP server (OpenLDAP) on reserved ports, that can be stopped, halted and started again.
//! Always: it keeps its files in a directory of its own and is no service of the system.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use tempfile::TempDir;

use crate::harness::certificates;
use crate::harness::eventually;
use crate::harness::nginx::PATH;
use crate::harness::port::Port;
use crate::harness::process::Process;

/// One server, running or stopped, always at the same ports: `uid=ann,dc=test` has the password `secret`.
pub struct Slapd {
    plain: Port,
    tls: Port,
    directory: TempDir,
    process: Option<Process>,
}

const PEOPLE: &str = "dn: dc=test
objectClass: domain
dc: test

dn: uid=ann,dc=test
objectClass: account
objectClass: simpleSecurityObject
uid: ann
userPassword: secret
";

impl Slapd {
    /// Starts it. Its certificate is of `localhost`.
    #[track_caller]
    pub fn start() -> Self {
        let mut slapd = Self::unstarted();
        slapd.start_again();
        slapd
    }

    /// One that does not run yet.
    #[track_caller]
    pub fn unstarted() -> Self {
        let directory =
            tempfile::Builder::new().prefix("ringway-slapd-").tempdir().expect("temporary files can be made");
        let path = directory.path();
        certificates::write(path, "localhost");
        std::fs::create_dir(path.join("data")).expect("a directory can be made");
        let place = path.display();
        let config = format!(
            "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
             modulepath /usr/lib/ldap\nmoduleload back_mdb\n\
             TLSCertificateFile {place}/leaf.pem\nTLSCertificateKeyFile {place}/leaf.key\n\
             database mdb\nsuffix dc=test\nrootdn cn=admin,dc=test\nrootpw admin\ndirectory {place}/data\n"
        );
        std::fs::write(path.join("slapd.conf"), config).expect("it can be written to");
        std::fs::write(path.join("people.ldif"), PEOPLE).expect("it can be written to");
        let mut add = slapd(path, &["-Tadd", "-l", "people.ldif"]);
        assert!(add.status().is_ok_and(|status| status.success()), "slapadd (tools/test installs slapd)");
        Self { plain: Port::reserve(), tls: Port::reserve(), directory, process: None }
    }

    /// Where it listens without TLS, until it is asked for.
    pub fn port(&self) -> u16 {
        self.plain.number
    }

    /// Where it begins with TLS.
    pub fn tls_port(&self) -> u16 {
        self.tls.number
    }

    /// The authority that signed its certificate.
    pub fn authority(&self) -> String {
        self.directory.path().join("ca.pem").display().to_string()
    }

    /// Starts it at the same ports as before, and waits until it takes connections.
    #[track_caller]
    pub fn start_again(&mut self) {
        let (plain, tls) = (self.plain.number, self.tls.number);
        let listens = format!("ldap://127.0.0.1:{plain} ldaps://127.0.0.1:{tls}");
        let mut process = Process::start(&mut slapd(self.directory.path(), &["-d", "0", "-h", &listens]));
        eventually("slapd to take connections", || {
            assert!(process.ended().is_none(), "slapd ended");
            TcpStream::connect(("127.0.0.1", plain)).ok()
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
}

fn slapd(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("slapd");
    command.env("PATH", PATH).current_dir(directory);
    // Files of this directory only, whatever the system's configuration says.
    command.args(arguments).arg("-f").arg(directory.join("slapd.conf"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
