//! curl, as a person types it.

use std::process::Command;

use crate::harness::client::Response;
use crate::harness::client::parse_printed;

/// Runs a line that begins with `curl` in a shell, with each `:<number>` of `ports` replaced by the port in use.
/// The line should not ask for headers: `-i` is added.
#[track_caller]
pub fn curl(line: &str, ports: &[(u16, u16)]) -> Response {
    let mut line = line.to_owned();
    for (written, real) in ports {
        line = line.replace(&format!(":{written}"), &format!(":{real}"));
    }
    let arguments = line.strip_prefix("curl ").unwrap_or_else(|| panic!("{line:?} is no line for curl"));
    let shell = format!("exec curl --silent --show-error --include --max-time 20 --noproxy '*' {arguments}");
    let output = Command::new("sh").args(["-c", &shell]).output().expect("there is a shell");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}\n{} {error}", output.status);
    parse_printed(&output.stdout)
}
