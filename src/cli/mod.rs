//! Commands of the operator.
//! Owns: flags, the sentences printed, exit codes (0 done, 1 failed, 2 wrong usage, 3 a difference that was asked about).
//! Always: a failure says what was wrong and what to do next, on standard error.

pub mod account;
mod admin;
mod args;
mod config;
mod explain;
mod health;
pub mod logging;
mod pid_file;
mod prefix;
mod signal;
pub mod source;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};
use ringway::config::{ConfigError, Loaded, Settings, Warning};

use args::{Args, Command, Common, ConfigAction, ConfigArgs, ExplainArgs};
use pid_file::PidFile;
use source::{ConfigSource, SourceError};

/// How much longer than its own limit a node that stops is waited for.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// Exit code of `config diff --exit-code` when there is a difference.
const DIFFERENT: u8 = 3;

/// Reads the command line, does what it says, reports.
pub fn run() -> ExitCode {
    let command = Args::command().mut_subcommand("start", |start| start.after_long_help(args::settings_help()));
    let args = Args::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    let outcome = match args.command {
        Command::Start(common) => start(&common),
        Command::Check { file, common } => check(file, &common),
        Command::Reload(common) => reload(&common),
        Command::Quit { timeout_s, common } => quit(timeout_s, &common),
        Command::Stop(common) => stop(&common),
        Command::Health(common) => health(&common),
        Command::Explain(args) => explain(&args),
        Command::Config(args) => return config(&args).unwrap_or_else(Failure::report),
        Command::Version { all } => {
            print!("{}", args::version(all));
            Ok(())
        }
    };
    outcome.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
}

/// Why a command failed.
enum Failure {
    /// The log has it, and with it standard error.
    Logged,
    Says(String),
}

impl Failure {
    fn report(self) -> ExitCode {
        if let Self::Says(message) = self {
            eprintln!("ringway: {message}");
        }
        ExitCode::FAILURE
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Says(message)
    }
}

fn start(common: &Common) -> Result<(), Failure> {
    let source = ConfigSource::of(common)?;
    let Loaded { settings, warnings } = load(&source)?;
    if let Some(user) = &settings.user {
        account::Account::find(user)?;
    }
    prefix::prepare(&settings)?;
    let _pid_file = PidFile::claim(&settings.prefix)?;
    let log = logging::init(&settings)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(
        "ringway {} starts with {} and prefix {}",
        env!("CARGO_PKG_VERSION"),
        source.describe(),
        settings.prefix.display()
    );
    crate::start::start(settings, &source, &log).map_err(|message| {
        tracing::error!("{message}");
        Failure::Logged
    })
}

fn check(file: Option<std::path::PathBuf>, common: &Common) -> Result<(), Failure> {
    let mut source = ConfigSource::of(common)?;
    if file.is_some() {
        source.file = file;
    }
    let loaded = load(&source)?;
    print_warnings(&loaded.warnings);
    println!("{} is valid", source.describe());
    Ok(())
}

/// The files are judged here first, so that their errors reach the operator and not only the node's log.
fn reload(common: &Common) -> Result<(), Failure> {
    let source = ConfigSource::of(common)?;
    let loaded = load(&source)?;
    print_warnings(&loaded.warnings);
    let pid = running(&loaded.settings.prefix)?;
    signal::send(pid, libc::SIGHUP)?;
    println!("ringway (process {pid}) was told to read its configuration again; its log says what came of it");
    Ok(())
}

fn quit(timeout_s: Option<u64>, common: &Common) -> Result<(), Failure> {
    let settings = settings_for_prefix(common)?;
    let pid = running(&settings.prefix)?;
    signal::send(pid, libc::SIGQUIT)?;
    let patience = timeout_s.map_or(drain_time(&settings), Duration::from_secs);
    if pid_file::wait_until_free(&settings.prefix, patience) {
        println!("ringway (process {pid}) finished its requests and ended");
        return Ok(());
    }
    println!("ringway (process {pid}) still had requests after {} s; ending it at once", patience.as_secs());
    signal::send(pid, libc::SIGINT)?;
    if pid_file::wait_until_free(&settings.prefix, STOP_MARGIN) {
        return Ok(());
    }
    Err(Failure::Says(format!(
        "process {pid} does not end; kill -KILL {pid} ends it, and acknowledged writes are kept"
    )))
}

fn stop(common: &Common) -> Result<(), Failure> {
    let settings = settings_for_prefix(common)?;
    let pid = running(&settings.prefix)?;
    signal::send(pid, libc::SIGTERM)?;
    if pid_file::wait_until_free(&settings.prefix, drain_time(&settings)) {
        println!("ringway (process {pid}) stopped");
        return Ok(());
    }
    Err(Failure::Says(format!("process {pid} still has requests in flight; kill -INT {pid} ends it without waiting")))
}

fn health(common: &Common) -> Result<(), Failure> {
    let settings = settings_for_prefix(common)?;
    let pid = running(&settings.prefix)?;
    let place = health::ask(&settings)?;
    println!("ringway (process {pid}) is healthy: it answers on {place}");
    Ok(())
}

fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    let settings = settings_for_prefix(&args.common)?;
    running(&settings.prefix)?;
    print!("{}", explain::ask(&settings, args)?);
    Ok(())
}

fn config(args: &ConfigArgs) -> Result<ExitCode, Failure> {
    let node = || -> Result<Settings, String> {
        let settings = settings_for_prefix(&args.common)?;
        running(&settings.prefix).map(|_| settings)
    };
    let mut code = ExitCode::SUCCESS;
    let said = match &args.action {
        // Here the settings decide what is right (plugins, router_flavor): a broken file is not passed over.
        ConfigAction::Check { file } => config::check(&load(&ConfigSource::of(&args.common)?)?.settings, file)?,
        ConfigAction::Load { file } => config::load(&node()?, file)?,
        ConfigAction::Dump { file } => config::dump(&node()?, file)?,
        ConfigAction::Diff { file, json, exit_code } => {
            let difference = config::diff(&node()?, file)?;
            if *exit_code && !difference.is_empty() {
                code = ExitCode::from(DIFFERENT);
            }
            if *json { difference.as_json() } else { difference.as_text() }
        }
    };
    print!("{said}");
    Ok(code)
}

fn drain_time(settings: &Settings) -> Duration {
    Duration::from_millis(settings.drain_timeout_ms).saturating_add(STOP_MARGIN)
}

fn running(prefix: &std::path::Path) -> Result<i32, String> {
    pid_file::running(prefix)?.ok_or_else(|| {
        format!("no ringway runs with prefix {}; start one with: ringway start -p {0}", prefix.display())
    })
}

fn load(source: &ConfigSource) -> Result<Loaded, String> {
    source.load().map_err(|error| match error {
        SourceError::Unreadable(message) => message,
        SourceError::Invalid(errors) => invalid(&errors),
    })
}

/// For commands that need little more than the prefix: with `-p`, a broken file must not keep a node from being stopped.
fn settings_for_prefix(common: &Common) -> Result<Settings, String> {
    let source = ConfigSource::of(common)?;
    match (load(&source), &common.prefix) {
        (Ok(loaded), _) => Ok(loaded.settings),
        (Err(message), None) => Err(format!("{message}\nname the prefix with -p to go on without that")),
        (Err(_), Some(_)) => load(&ConfigSource { file: None, ..source }).map(|loaded| loaded.settings),
    }
}

fn invalid(errors: &[ConfigError]) -> String {
    let lines: Vec<String> = errors.iter().map(|error| format!("  {error}")).collect();
    let count = match errors.len() {
        1 => "1 error".to_owned(),
        n => format!("{n} errors"),
    };
    format!("the configuration has {count}:\n{}", lines.join("\n"))
}

fn print_warnings(warnings: &[Warning]) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}
