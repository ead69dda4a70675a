//! The worker: a process that must run at most once. It writes a line to the ledger every 5 ms until it is killed.
//!
//! It is bound to the lease of its daemon ([`quorate::Lease::spawn`]), and needs no code for that.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::fencer::ProcessGroups;
use crate::{ledger, process};

/// `worker TOKEN OWNER FOLDER GUARDIAN SINCE`
pub(crate) fn main(mut args: impl Iterator<Item = String>) -> Result<()> {
    let mut next = |what: &'static str| args.next().with_context(|| format!("the worker needs {what}"));
    let (token, owner) = (next("a token")?.parse()?, next("an owner")?.parse()?);
    let folder = PathBuf::from(next("a folder")?);
    process::end_with(next("a guardian")?.parse()?, next("its start")?.parse()?);
    // The fencer must know the process before it works.
    ProcessGroups { folder: folder.join("groups") }.register_worker(owner)?;
    let mut ledger = ledger::Writer::open(&folder.join("ledger"), token, owner)?;
    loop {
        ledger.write()?;
        std::thread::sleep(Duration::from_millis(5));
    }
}
