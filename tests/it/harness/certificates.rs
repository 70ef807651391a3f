//! Certificates that openssl makes for one test.

use std::path::Path;
use std::process::Command;
use std::process::Stdio;

/// Leaves `leaf.pem` for that name with `leaf.key` in the directory, and the authority that signed it as `ca.pem`.
#[track_caller]
pub fn write(directory: &Path, name: &str) {
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(directory, &format!("req -x509 {new} -keyout ca.key -out ca.pem -subj /CN=authority"));
    openssl(directory, &format!("req {new} -keyout leaf.key -out leaf.csr -subj /CN={name}"));
    std::fs::write(directory.join("names"), format!("subjectAltName=DNS:{name}\n")).expect("it can be written to");
    openssl(directory, "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -out leaf.pem");
}

/// Runs openssl in a directory.
#[track_caller]
pub fn openssl(directory: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    command.current_dir(directory).args(arguments.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().is_ok_and(|status| status.success()), "openssl {arguments}");
}
