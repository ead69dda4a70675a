//! Three real processes, one real worker, and what happens to them.
//!
//! ```text
//!   director (this process) ─┬─ n1: quorate node ── worker ──┐
//!     kills, restarts,       ├─ n2: quorate node             ├──▶ ledger (token, owner, CLOCK_MONOTONIC), checks tokens
//!     hands over, audits     └─ n3: quorate node             ┘
//! ```
//!
//! `cargo run --release --example three_nodes` forms the cluster, kills the owner's process group, kills only its
//! daemon while the worker runs on, hands the work over by plan, and exchanges a member. It ends with a table and an
//! audit of the ledger, and exits non-zero if two owners' lines overlap or a token went backwards.
//! Options: `--json FILE`, `--rounds N`, `--only-crashes`.

mod audit;
mod director;
mod fencer;
mod ledger;
mod node;
mod process;
mod story;
mod table;
mod worker;

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: three_nodes [--json FILE] [--rounds N] [--only-crashes]";

/// What the director was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    json: Option<std::path::PathBuf>,
    rounds: u32,
    only_crashes: bool,
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
                options.rounds =
                    rounds.with_context(|| format!("--rounds {text}: a number from 1 to 1000 is needed"))?;
            }
            "--only-crashes" => options.only_crashes = true,
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
        Some(_) | None => return director::main(options(args)?),
    }
    Ok(std::process::ExitCode::SUCCESS)
}
