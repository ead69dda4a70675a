//! Bound children: processes that cannot outlive the lease that they were started under.
//!
//! ```text
//!   lease.spawn(command, "postgres", r19) ─▶ BoundChild ── wait() ── kill() ── drop
//!
//!   what ends                              what kills the child             … and its own children
//!   this process, however                  the kernel (parent-death)        the guardian
//!   the lease, this process alive          the keeper, by its group         the keeper, by its group
//!   the child                                                               its thread here, by its group
//! ```
//!
//! A dead-man kills its own process and nothing else, because timers are not inherited. Each child is therefore started by
//! a thread of its own, in a process group of its own, beside a *guardian* that only waits for that thread's death. The
//! work counts as stopped only when no process of the group is left.
//!
//! It does not hold a grandchild that leaves the process group (`setsid`, job control, a daemon that detaches itself), that
//! has fully become another user, or that is no descendant (started by a service manager on request). Run such work under
//! a cgroup, a device or a watchdog. The guardian is a fork of this process: pages that this process writes to later are
//! kept twice while the child lives.

mod group;
mod privilege;
mod start;

use std::io;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use quorate_membership::{Revision, Stop};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use self::group::Group;
use self::start::{NotStarted, Slot, Started};
use crate::lease::error::ProtectError;
use crate::lease::handle::{Lease, Protection};

/// A child process that dies with its lease, with this process, and with this value.
///
/// The fields are the pipes that its command asked for, to be taken. `tokio::process::ChildStdin::from_std` and its
/// siblings make them asynchronous.
#[derive(Debug)]
pub struct BoundChild {
    /// The standard input of the child, if piped.
    pub stdin: Option<ChildStdin>,
    /// The standard output of the child, if piped.
    pub stdout: Option<ChildStdout>,
    /// The standard error of the child, if piped.
    pub stderr: Option<ChildStderr>,
    pid: u32,
    what: String,
    token: Revision,
    group: Arc<Group>,
    ended: watch::Receiver<Option<Result<ExitStatus, String>>>,
}

/// The end of a bound child, for who has to know of it beside the holder of its handle.
#[derive(Debug, Clone)]
pub(crate) struct ChildEnd {
    group: Arc<Group>,
    ended: watch::Receiver<Option<Result<ExitStatus, String>>>,
}

impl ChildEnd {
    /// Whether it is certain that no process of its group is left.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(&*self.ended.borrow(), Some(Ok(_)))
    }

    /// Kills its whole group, without waiting.
    pub(crate) fn kill(&self) -> io::Result<()> {
        self.group.kill()
    }

    /// Waits for its end. Returns whether it is certain that no process of its group is left.
    pub(crate) async fn gone(mut self) -> bool {
        self.ended.wait_for(Option::is_some).await.is_ok_and(|ended| matches!(&*ended, Some(Ok(_))))
    }
}

impl Lease {
    /// Starts `command` as work named `what` under `token`, bound to this lease. It is protected as by [`Lease::protect`],
    /// and its whole process group is killed when the lease ends, when this process ends, and when the child is dropped.
    /// The command's own choice of a process group is replaced.
    ///
    /// Call it within a tokio runtime. Dropping the future before it resolves leaves nothing running: what was started is
    /// killed.
    ///
    /// # Errors
    /// [`ProtectError::Unbound`] when this node has no mechanism that ends a process, [`ProtectError::ProcessBound`] when
    /// this life declared that its work dies with its process. [`ProtectError::Spawn`] when the child could not be started,
    /// would lose the parent-death signal (setuid, setgid, file capabilities), or failed a check after its start; whatever
    /// was started is dead then and nothing is protected. [`ProtectError::MayRun`] when that is not certain. The others as for
    /// [`Lease::protect`].
    pub async fn spawn(
        &self,
        command: Command,
        what: impl Into<String>,
        token: Revision,
    ) -> Result<BoundChild, ProtectError> {
        if self.process_bound {
            return Err(ProtectError::ProcessBound);
        }
        match self.view().stop {
            Stop::Deadman { .. } | Stop::Watchdog { .. } | Stop::Own { .. } => {}
            stop @ (Stop::Tokens | Stop::Unbounded) => return Err(ProtectError::Unbound(stop)),
        }
        let (reply, replied) = oneshot::channel();
        let (lease, what, runtime) = (self.clone(), what.into(), Handle::current());
        std::thread::Builder::new()
            .name("quorate-child".into())
            .spawn(move || live(&lease, command, what, token, &runtime, reply))
            .map_err(|error| ProtectError::Spawn(format!("no thread for it: {error}")))?;
        replied.await.map_err(|_| ProtectError::Spawn("the thread that should start it has ended".into()))?
    }
}

/// The whole life of a bound child, on the thread that it is bound to.
fn live(
    lease: &Lease,
    command: Command,
    what: String,
    token: Revision,
    runtime: &Handle,
    reply: oneshot::Sender<Result<BoundChild, ProtectError>>,
) {
    let slot = Arc::new(Slot::default());
    let at_end = {
        let slot = slot.clone();
        move || {
            if let Err(error) = slot.end() {
                tracing::error!(%error, "a bound child could not be killed at the end of its lease");
            }
        }
    };
    // Armed first (P14). On this thread no caller can cancel it.
    let (protection, started) = match runtime.block_on(lease.protect_until(what.clone(), token, Some(Box::new(at_end))))
    {
        Ok(protection) => {
            let started = begin(&slot, command, &protection, &reply);
            (protection, started)
        }
        Err(error) => {
            let _caller_gone = reply.send(Err(error));
            return;
        }
    };
    let mut started = match started {
        Ok(started) => started,
        Err((error, gone)) => {
            if gone {
                protection.stopped();
            }
            let _caller_gone = reply.send(Err(error));
            return;
        }
    };
    let (ending, ended) = watch::channel(None);
    let child = BoundChild {
        stdin: started.worker.stdin.take(),
        stdout: started.worker.stdout.take(),
        stderr: started.worker.stderr.take(),
        pid: started.worker.id(),
        what,
        token,
        group: started.group.clone(),
        ended,
    };
    // Without a receiver the child comes back, is dropped right here, and is killed by that.
    drop(reply.send(Ok(child)));
    let status = start::outlive(started);
    match &status {
        Ok(_) => protection.stopped(),
        Err(error) => {
            tracing::error!(%error, what = protection.what(), "a bound child may still run; it stays protected");
        }
    }
    ending.send_replace(Some(status.map_err(|error| error.to_string())));
}

fn begin(
    slot: &Slot,
    command: Command,
    protection: &Protection,
    reply: &oneshot::Sender<Result<BoundChild, ProtectError>>,
) -> Result<Started, (ProtectError, bool)> {
    if reply.is_closed() {
        return Err((ProtectError::Spawn("its caller does not wait for it any more".into()), true));
    }
    protection.check().map_err(|error| (error.into(), true))?;
    start::spawn(slot, command).map_err(|NotStarted { why, gone }| {
        let why = why.to_string();
        let error = if gone { ProtectError::Spawn(why) } else { ProtectError::MayRun(why) };
        (error, gone)
    })
}

impl BoundChild {
    /// The process id of the child.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The process group of the child, which its guardian leads.
    pub fn group(&self) -> u32 {
        self.group.id.as_raw_pid().unsigned_abs()
    }

    /// The token that the child runs under.
    pub fn token(&self) -> Revision {
        self.token
    }

    /// The name that the child is protected under.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Waits until the child has ended and no process of its group is left; those that are left when it ends are killed.
    /// Its work is not protected any more then. Cancel-safe; may be called again. A child that reads its standard input may
    /// wait for [`Self::stdin`] to be dropped.
    ///
    /// # Errors
    /// When it is not certain that no process of the group is left. The work stays protected, and the stop mechanism acts at
    /// the end of the lease.
    pub async fn wait(&self) -> io::Result<ExitStatus> {
        let mut ended = self.ended.clone();
        let known = ended.wait_for(Option::is_some).await;
        let status = known.as_deref().ok().cloned().flatten();
        status.unwrap_or_else(|| Err("the thread that it was bound to has ended".into())).map_err(io::Error::other)
    }

    pub(crate) fn end(&self) -> ChildEnd {
        ChildEnd { group: self.group.clone(), ended: self.ended.clone() }
    }

    /// Asks the child to end (SIGTERM), waits for it for at most `grace`, and then kills as [`Self::kill`] does. Only the child
    /// itself is asked; what is left of its group when it has ended is killed. The lease does not wait: at its end the
    /// child is killed, however much of the grace is left. After [`Lease::lost`] less than the margin M is left.
    ///
    /// # Errors
    /// As for [`Self::kill`]. Cancel-safe: a child that was asked may end later.
    pub async fn stop(&self, grace: Duration) -> io::Result<ExitStatus> {
        self.group.ask()?;
        match tokio::time::timeout(grace, self.wait()).await {
            Ok(ended) => ended,
            Err(_) => self.kill().await,
        }
    }

    /// Kills the child and every process of its group (SIGKILL), and waits as [`Self::wait`] does.
    ///
    /// # Errors
    /// When it could not be killed, and as for [`Self::wait`].
    pub async fn kill(&self) -> io::Result<ExitStatus> {
        self.group.kill()?;
        self.wait().await
    }
}

/// Kills the child and every process of its group, without waiting.
impl Drop for BoundChild {
    fn drop(&mut self) {
        if let Err(error) = self.group.kill() {
            tracing::error!(%error, what = self.what, "a bound child that was dropped could not be killed");
        }
    }
}
