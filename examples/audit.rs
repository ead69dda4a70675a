//! Audits the ledgers in the data folders of all nodes of a cluster: whether any life could still act at a time when
//! the log had already declared its end.
//!
//! ```text
//!   cargo run --example audit -- /var/lib/quorate/n1 /var/lib/quorate/n2 /var/lib/quorate/n3
//! ```
//!
//! The exit code is 0 if no overlap was found, 1 if one was, and 2 if a ledger is missing, incomplete or unreadable.

use std::path::PathBuf;
use std::process::ExitCode;

use quorate_raft_core::ledger::audit::{Verdict, audit};

fn main() -> ExitCode {
    let folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if folders.is_empty() {
        eprintln!("usage: audit FOLDER...   (the data folders of all nodes)");
        return ExitCode::from(2);
    }
    match audit(&folders) {
        Ok(report) => {
            println!("{report}");
            match report.verdict() {
                Verdict::Clean => ExitCode::SUCCESS,
                Verdict::Overlap => ExitCode::from(1),
                Verdict::Incomplete => ExitCode::from(2),
            }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
