//! The fencer of the demo: ends a life by killing its process group, and verifies that nobody of it runs.
//!
//! ```text
//!   groups/n1#2: "4711 88112"   group 4711, whose first process was started at tick 88112
//!       │ still that process, or children of it left ─▶ SIGKILL to the group ─▶ nobody left in /proc? ─▶ evidence
//!       └ the number belongs to a process started later ─▶ the group had emptied before ─▶ evidence
//! ```
//!
//! The kernel does not give a process number away while a group of that number has members, so a group is known by
//! its number and the start time of its first process.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use quorate::{Evidence, FenceRequest, Identity, NodeId};

use crate::process;

/// Kills process groups. Each process records its own in `folder` before it joins, and under its life's name before
/// that life runs a worker.
#[derive(Debug, Clone)]
pub(crate) struct ProcessGroups {
    pub(crate) folder: PathBuf,
}

impl ProcessGroups {
    /// Records the process group of a process that is about to join as `node`, for the time until its life has a name.
    /// Refused while the process that was recorded before still runs: its record must not be lost.
    pub(crate) fn starting(&self, node: NodeId) -> Result<()> {
        let name = format!("{node} starting");
        if let Some((group, since)) = process::read_numbers(&self.folder.join(&name))?
            && process::started(group)? == Some(since)
        {
            bail!("process {group} runs as {node} already; stop it first");
        }
        self.record(&name)
    }

    /// Records the process group of a life, before it runs a worker.
    pub(crate) fn register(&self, who: Identity) -> Result<()> {
        self.record(&who.to_string())
    }

    fn record(&self, name: &str) -> Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let group = rustix::process::getpgrp().as_raw_nonzero().get();
        let since = process::started(group)?.context("this process leads its group")?;
        let (new, file) = (self.folder.join(format!("{name}.new")), self.folder.join(name));
        std::fs::write(&new, format!("{group} {since}\n"))?;
        std::fs::rename(new, file)?;
        Ok(())
    }

    /// Ends the target of `request`, or says why it is not certain that it has ended.
    pub(crate) async fn fence(self, request: FenceRequest) -> Result<Evidence> {
        // A life without a record of its own never ran a worker; its process is the one that was starting last.
        let (life, node) = (request.target.to_string(), format!("{} starting", request.target.node));
        let known = match process::read_numbers(&self.folder.join(life))? {
            Some(own) => Some(own),
            None => process::read_numbers(&self.folder.join(node))?,
        };
        let Some((group, since)) = known else {
            bail!("no process group is known for {}", request.target);
        };
        if process::started(group)?.is_some_and(|started| started != since) {
            return Ok(Evidence::new(format!("process {group} was started later: the group had ended"))?);
        }
        let before = process::members(group)?;
        process::kill_group(group)?;
        loop {
            let left = process::members(group)?;
            if left.is_empty() {
                let killed = before.len();
                return Ok(Evidence::new(format!("process group {group} is gone, {killed} killed"))?);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
