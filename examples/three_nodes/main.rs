//! The demo: three real processes, one real worker, and a list of faults.
//!
//! ```text
//!   director (this process) ─┬─ n1: daemon ══ lease ══ worker ──┐
//!     kills, stops, cuts,    ├─ n2: daemon                      ├──▶ ledger (token, owner, CLOCK_MONOTONIC), checks tokens
//!     restarts, audits       └─ n3: daemon                      ┘
//!                                  └─ every connection between them passes through a relay of the director's
//! ```
//!
//! `cargo run --release --example three_nodes` forms a cluster and takes the work from its owner by each fault that it
//! knows. The owner is killed, stopped or cut off, once with a fencer that ends it and once with none that reaches it,
//! so that elapsed time has to prove its end. Then other nodes fail, and a member is replaced. The run ends with a
//! table, an audit of the worker's ledger and an audit of the leases. The exit code is 1 if two workers ever ran at
//! once, two leases overlapped or a token decreased, and 2 if the run did not finish.
//!
//! Options: `--json FILE` writes the results. `--rounds N` repeats the faults and prints the median and the worst of
//! each. `--profile` sets the timing: `standard`, `fastest` for the fastest that the disk allows, `all` for both in
//! turn, or a target for the failover such as `2000ms`; the default is `all` for several rounds, and `standard` for
//! one. `--faults a,b,c` runs those faults (fault.rs) instead of all, and `--only-crashes` the two that kill the owner.

mod audit;
mod director;
mod fault;
mod fencer;
mod kept;
mod keys;
mod ledger;
mod manager;
mod node;
mod pace;
mod process;
mod relay;
mod report;
mod sockets;
mod stage;
mod story;
mod table;
mod takeover;
mod worker;

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::fault::Fault;
use crate::pace::Pace;

const USAGE: &str = "usage: three_nodes [--json FILE] [--rounds N] [--profile standard|fastest|all|2000ms] \
                     [--faults a,b,c] [--only-crashes]";

/// The options of the director.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    json: Option<std::path::PathBuf>,
    rounds: u32,
    profile: Option<String>,
    faults: Option<Vec<Fault>>,
}

impl Options {
    /// The faults of each round.
    fn faults(&self) -> Vec<Fault> {
        self.faults.clone().unwrap_or_else(|| Fault::STORY.into())
    }

    /// Whether a member is replaced at the end.
    fn exchanges(&self) -> bool {
        self.faults.is_none()
    }

    fn paces(&self) -> Result<Vec<Pace>> {
        let fastest = || Pace::fastest(&std::env::temp_dir());
        let default = if self.rounds > 1 { "all" } else { "standard" };
        match self.profile.as_deref().unwrap_or(default) {
            "standard" => Ok(vec![Pace::Standard]),
            "fastest" => Ok(vec![fastest()?]),
            "all" => Ok(vec![Pace::Standard, fastest()?]),
            other => {
                let target = other.strip_suffix("ms").and_then(|ms| ms.parse().ok());
                let target = target.with_context(|| format!("`{other}` is not a profile; {USAGE}"))?;
                Ok(vec![Pace::Within(Duration::from_millis(target))])
            }
        }
    }
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options { rounds: 1, ..Options::default() };
    while let Some(arg) = args.next() {
        let mut value = |what| args.next().with_context(|| format!("{arg} needs {what}; {USAGE}"));
        match arg.as_str() {
            "--json" => options.json = Some(value("a file")?.into()),
            "--rounds" => {
                let text = value("a number")?;
                let rounds = text.parse().ok().filter(|n| (1..=1000).contains(n));
                options.rounds = rounds
                    .with_context(|| format!("`--rounds {text}` is out of range; give a number from 1 to 1000"))?;
            }
            "--profile" => options.profile = Some(value("a profile")?),
            "--faults" => options.faults = Some(value("faults")?.split(',').map(str::parse).collect::<Result<_>>()?),
            "--only-crashes" => options.faults = Some(vec![Fault::Crash, Fault::Daemon]),
            "--help" | "-h" => bail!("{USAGE}"),
            other => bail!("`{other}` is not an option; {USAGE}"),
        }
    }
    Ok(options)
}

fn main() -> Result<std::process::ExitCode> {
    let mut args = std::env::args().skip(1).peekable();
    match args.peek().map(String::as_str) {
        Some("node") => node::main(args.skip(1))?,
        Some("worker") => worker::main(args.skip(1))?,
        Some(_) | None => return director::main(&options(args)?),
    }
    Ok(std::process::ExitCode::SUCCESS)
}
