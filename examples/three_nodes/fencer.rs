//! The fencer of the demo: ends a life by killing the process groups of its daemon and its workers, and verifies that
//! none of their processes runs.
//!
//! ```text
//!   the hint of n1#2:        "4711 88112"   the daemon's group, whose first process was started at tick 88112
//!   groups/n1#2 worker 4790: "4790 88391"   a worker's group
//!       │ still that process, or children of it left ─▶ SIGKILL to the group ─▶ none left in /proc? ─▶ evidence
//!       └ the number belongs to a process started later ─▶ the group had emptied before ─▶ evidence
//!
//!   fencer:  writes "n1#2 over", then reads the records        one of the two sees the other: no worker that is
//!   worker:  writes its record, then looks for "n1#2 over"     starting just now escapes
//! ```
//!
//! The kernel does not reuse a process number while a group of that number has members. So a group is identified by its
//! number and the start time of its first process.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use quorate::fencing::FenceHint;
use quorate::{Evidence, FenceRequest, Identity};

use crate::process::{self, end_group};

/// The name that closes every life, once the demo has ended.
const EVERY_LIFE: &str = "every life";

/// The records of process groups in `folder`. Each worker records its own before it works. That of its daemon is in the log,
/// as the hint with which each life joins, so that this fencer tells the lives of a node apart.
#[derive(Debug, Clone)]
pub(crate) struct ProcessGroups {
    pub(crate) folder: PathBuf,
}

impl ProcessGroups {
    /// Records the process group of a worker, before it works.
    ///
    /// # Errors
    /// If its life has ended; the worker must not work.
    pub(crate) fn register_worker(&self, who: Identity) -> Result<()> {
        let group = own_group();
        self.record(&format!("{who} worker {group}"), group)?;
        for over in [who.to_string(), EVERY_LIFE.into()] {
            ensure!(
                !self.folder.join(format!("{over} over")).try_exists()?,
                "{who} has ended, so no worker may start for it"
            );
        }
        Ok(())
    }

    fn record(&self, name: &str, group: i32) -> Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let since = process::started(group)?.context("a process leads this group")?;
        let (new, file) = (self.folder.join(format!("{name}.new")), self.folder.join(name));
        std::fs::write(&new, format!("{group} {since}\n"))?;
        std::fs::rename(new, file)?;
        Ok(())
    }

    /// Closes a life: from here on, no worker of it starts.
    fn close(&self, who: &str) -> Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        std::fs::write(self.folder.join(format!("{who} over")), "").context("closing a life")
    }

    /// The recorded process groups of every worker of `who`, or of every life.
    fn workers(&self, who: Option<Identity>) -> Result<Vec<(i32, u64)>> {
        let mut found = vec![];
        for entry in std::fs::read_dir(&self.folder).context("the records of process groups")? {
            let name = entry?.file_name();
            let Some((life, number)) = name.to_str().and_then(|name| name.split_once(" worker ")) else { continue };
            let wanted = who.is_none_or(|who| who.to_string() == life);
            if wanted && !number.ends_with(".new") {
                found.extend(process::read_numbers(&self.folder.join(&name))?);
            }
        }
        Ok(found)
    }

    /// The worker groups of a life, or of every life, whose numbers were not reused since they were recorded.
    pub(crate) fn known_workers(&self, who: Option<Identity>) -> Result<Vec<i32>> {
        let mut found = vec![];
        for (group, since) in self.workers(who)? {
            if process::started(group)?.is_none_or(|started| started == since) {
                found.push(group);
            }
        }
        Ok(found)
    }

    /// The living processes of a life's workers.
    pub(crate) fn working(&self, who: Identity) -> Result<Vec<i32>> {
        let groups = self.known_workers(Some(who))?;
        Ok(groups.into_iter().map(process::workers).collect::<Result<Vec<_>>>()?.concat())
    }

    /// Ends every worker, and lets no other one start.
    pub(crate) async fn end_all_workers(&self) -> Result<()> {
        self.close(EVERY_LIFE)?;
        for group in self.workers(None)? {
            end_group(group).await?;
        }
        Ok(())
    }

    /// Ends the target of `request` and returns the evidence.
    ///
    /// # Errors
    /// If it is not certain that the target has ended.
    async fn fence(&self, request: &FenceRequest) -> Result<Evidence> {
        let life = request.target.to_string();
        self.close(&life)?;
        let hint = request.hint.as_ref().with_context(|| format!("{life} joined without a hint"))?;
        let daemon = process::numbers(hint.as_str()).with_context(|| format!("the hint of {life} is `{hint}`"))?;
        let mut said = match end_group(daemon).await? {
            Some(killed) => format!("process group {} is gone, {killed} killed", daemon.0),
            None => format!("process {} started later, so the recorded group had ended", daemon.0),
        };
        for worker in self.workers(Some(request.target))? {
            if let Some(killed) = end_group(worker).await? {
                said += &format!("; worker group {} is gone, {killed} killed", worker.0);
            }
        }
        Ok(Evidence::new(said)?)
    }
}

/// How this process is told from others of its node: its group, and when its first process was started.
pub(crate) fn hint() -> Result<FenceHint> {
    let group = own_group();
    let since = process::started(group)?.context("a process leads this group")?;
    Ok(FenceHint::new(format!("{group} {since}"))?)
}

fn own_group() -> i32 {
    rustix::process::getpgrp().as_raw_nonzero().get()
}

/// The fencer of one node, with a switch. Switched off, it fails every attempt, like a management network that is down.
#[derive(Debug, Clone)]
pub(crate) struct Fencer {
    pub(crate) groups: ProcessGroups,
    pub(crate) off: Arc<AtomicBool>,
}

impl Fencer {
    pub(crate) async fn fence(self, request: FenceRequest) -> Result<Evidence> {
        ensure!(!self.off.load(Ordering::SeqCst), "the fencer is switched off");
        self.groups.fence(&request).await
    }
}
