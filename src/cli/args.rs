//! The command line, and the help that the table of properties gives.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand};
use ringway::config::PROPERTIES;

/// API gateway and load balancer with Kong's Admin API.
#[derive(Debug, Parser)]
#[command(name = "ringway", version, disable_version_flag = true)]
pub struct Args {
    /// Print the version.
    #[arg(short = 'v', short_alias = 'V', long = "version", action = ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node in the foreground.
    Start(Common),
    /// Read a configuration and report everything that is wrong with it.
    Check {
        /// The file to read, as -c.
        file: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Make a running node read its configuration again.
    Reload(Common),
    /// Stop a running node once its requests are done.
    Quit {
        /// Seconds to wait for requests before it is ended at once [default: drain_timeout and a margin].
        #[arg(short, long = "timeout", value_name = "SECONDS")]
        timeout_s: Option<u64>,
        #[command(flatten)]
        common: Common,
    },
    /// Stop a running node, waiting for its requests as long as drain_timeout says.
    Stop(Common),
    /// Ask a running node whether it serves; exit code 0 when it does.
    Health(Common),
    /// Ask a running node what it would do with a request, and why.
    Explain(ExplainArgs),
    /// Check, load, compare or write the whole configuration as one declarative document.
    Config(ConfigArgs),
    /// Print the version.
    Version {
        /// And what it was built for and runs on.
        #[arg(short, long)]
        all: bool,
    },
}

/// Where the configuration comes from. Every command takes the same, so that all find the same node.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Common {
    /// Configuration file [default: /etc/ringway/ringway.conf or /etc/ringway.conf, when there is one].
    #[arg(short, long, value_name = "FILE", global = true)]
    pub conf: Option<PathBuf>,
    /// Directory of the node: store, admin socket, logs, pid file.
    #[arg(short, long, value_name = "DIRECTORY", global = true)]
    pub prefix: Option<PathBuf>,
    /// Set a property, over the environment and the file. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment, global = true)]
    pub set: Vec<(String, String)>,
    /// Say which sources are read.
    #[arg(short, long, aliases = ["v", "vv"], global = true)]
    pub verbose: bool,
}

/// A request to explain.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ExplainArgs {
    /// Method, such as GET.
    pub method: String,
    /// http://host/path?query, or a path alone.
    pub url: String,
    /// A header of the request. May be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// Address that the request comes from [default: 127.0.0.1].
    #[arg(long, value_name = "IP")]
    pub client_ip: Option<String>,
    /// Server name of the TLS handshake, for https.
    #[arg(long, value_name = "NAME")]
    pub sni: Option<String>,
    /// The consumer that authentication would find: its username or id.
    #[arg(long, value_name = "CONSUMER")]
    pub consumer: Option<String>,
    /// Print the node's answer as it is.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub common: Common,
}

/// What to do with a declarative document.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub action: ConfigAction,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Clone, Subcommand)]
pub enum ConfigAction {
    /// Report everything that is wrong with a document. Needs no running node.
    Check {
        /// YAML or JSON; - reads standard input.
        file: PathBuf,
    },
    /// Replace the configuration of a running node by a document: all of it, or nothing when something is wrong with it.
    Load {
        /// YAML or JSON; - reads standard input.
        file: PathBuf,
    },
    /// Show what loading a document into a running node would create, change and delete, without doing it.
    Diff {
        /// YAML or JSON; - reads standard input.
        file: PathBuf,
        /// Print the node's answer as it is.
        #[arg(long)]
        json: bool,
        /// Exit with 3 when there is a difference.
        #[arg(long)]
        exit_code: bool,
    },
    /// Write the configuration of a running node, with its keys and passwords, as a document that loads to the same.
    Dump {
        /// File to write, for its owner's eyes only; - writes to standard output.
        file: PathBuf,
    },
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.trim().to_owned())),
        _ => Err("write it as name=value, for example --set proxy_listen=127.0.0.1:8000".to_owned()),
    }
}

/// Every property with its default, for `ringway start --help`.
pub fn settings_help() -> String {
    let mut help = String::from(
        "Properties, for --set, the file, and the environment (upper-cased behind RINGWAY_ or KONG_).\n\
         Flags win over RINGWAY_, RINGWAY_ over KONG_, KONG_ over the file, the file over the defaults.\n",
    );
    let mut section = "";
    for property in PROPERTIES {
        if property.section != section {
            section = property.section;
            let _ = write!(help, "\n{section}:\n");
        }
        let default = if property.default.is_empty() { "blank" } else { property.default };
        let _ = writeln!(help, "  {} [default: {default}]", property.name);
        for doc in property.docs {
            let _ = writeln!(help, "     {doc}");
        }
    }
    help
}

/// The text of `ringway version`.
pub fn version(all: bool) -> String {
    let mut text = format!("ringway {}\n", env!("CARGO_PKG_VERSION"));
    if all {
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let _ = writeln!(text, "Admin API: Kong 3.10");
        let _ = writeln!(text, "built for: {} {}, {profile}", std::env::consts::OS, std::env::consts::ARCH);
        let _ = writeln!(text, "kernel: {}", kernel.trim());
        let _ = writeln!(text, "usable CPUs: {cpus}");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_fit_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_habits_of_kong_users_work() {
        for line in [
            "ringway start -c a.conf -p /x --set workers=1 --set a=b=c",
            "ringway start --conf a.conf --prefix /x --v",
            "ringway start --vv",
            "ringway check a.conf",
            "ringway reload -c a.conf",
            "ringway quit -t 5 -p /x",
            "ringway quit --timeout 5",
            "ringway stop -p /x",
            "ringway health -p /x",
            "ringway explain GET http://a.test/x -H A:b -H c:d --client-ip 10.0.0.1 -p /x",
            "ringway config check kong.yml",
            "ringway config -c a.conf load kong.yml",
            "ringway config load - -p /x",
            "ringway config diff kong.yml --json --exit-code",
            "ringway config dump - --set workers=1",
            "ringway version -a",
            "ringway version",
        ] {
            assert!(Args::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for line in ["ringway -v", "ringway --version", "ringway -V"] {
            let kind = Args::try_parse_from(line.split(' ')).map(|_| ()).map_err(|error| error.kind());
            assert_eq!(kind, Err(clap::error::ErrorKind::DisplayVersion), "{line}");
        }
    }

    #[test]
    fn a_set_without_a_name_or_a_value_is_wrong_usage() {
        for bad in ["workers", "=1", " =1"] {
            assert!(Args::try_parse_from(["ringway", "start", "--set", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_help_names_every_property() {
        let help = settings_help();
        assert!(PROPERTIES.iter().all(|property| help.contains(&format!("  {} [", property.name))));
    }
}
