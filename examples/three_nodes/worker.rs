//! The worker: a process that must run once. Writes a line to the ledger every few milliseconds until it is killed.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::{ledger, process};

/// `worker TOKEN OWNER LEDGER GUARDIAN SINCE`
pub(crate) fn main(mut args: impl Iterator<Item = String>) -> Result<()> {
    let mut next = |what: &'static str| args.next().with_context(|| format!("the worker needs {what}"));
    let (token, owner) = (next("a token")?.parse()?, next("an owner")?.parse()?);
    let path = next("a ledger")?;
    process::end_with(next("a guardian")?.parse()?, next("its start")?.parse()?);
    let mut ledger = ledger::Writer::open(path.as_ref(), token, owner)?;
    loop {
        ledger.write()?;
        std::thread::sleep(Duration::from_millis(5));
    }
}
