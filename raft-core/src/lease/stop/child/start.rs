//! Starts a guardian and, in its group, a worker; checks both; waits for the worker's end.
//!
//! ```text
//!   this process                                 group
//!   └─ thread "quorate-child" ──fork──────────▶ guardian   leads the group, waits for the thread's death
//!        │                    ──fork, exec────▶ worker     dies with the thread (parent-death signal)
//!        │                                       └─ grandchildren …   killed by the guardian, with the group
//!        └─ waits for the worker, ends the group, reports that; only then it ends itself
//! ```
//!
//! The parent-death signal belongs to the *thread* that forked, so this thread lives as long as any process of the group.

use std::io::{self, Read, pipe};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getpgid, pidfd_open};

use super::group::Group;
use super::privilege::{refuse_gained, refuse_privileged};
use crate::lease::stop::kernel::{die_with_parent, fork_guardian};

/// What has to be killed at the end of the lease: nothing yet, or a group.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Empty,
    Filled(Arc<Group>),
    Ended,
}

impl Slot {
    /// The lease has ended. Kills the group at once, and takes none any more.
    pub(super) fn end(&self) -> io::Result<()> {
        match std::mem::replace(&mut *self.0.lock(), State::Ended) {
            State::Filled(group) => group.kill(),
            State::Empty | State::Ended => Ok(()),
        }
    }

    fn fill(&self, group: Arc<Group>) -> io::Result<()> {
        let mut state = self.0.lock();
        match *state {
            State::Ended => Err(ended()),
            State::Empty | State::Filled(_) => {
                *state = State::Filled(group);
                Ok(())
            }
        }
    }

    fn still_open(&self) -> io::Result<()> {
        match *self.0.lock() {
            State::Ended => Err(ended()),
            State::Empty | State::Filled(_) => Ok(()),
        }
    }
}

fn ended() -> io::Error {
    io::Error::other("the lease ended while it was being started")
}

/// A worker that runs under a guardian.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) group: Arc<Group>,
    pub(super) worker: Child,
}

/// A worker that does not run.
#[derive(Debug)]
pub(super) struct NotStarted {
    pub(super) why: io::Error,
    /// Whether it is certain that nothing of it runs.
    pub(super) gone: bool,
}

impl From<io::Error> for NotStarted {
    fn from(why: io::Error) -> Self {
        Self { why, gone: true }
    }
}

/// Starts both. The calling thread must be the one that then waits for the end.
pub(super) fn spawn(slot: &Slot, mut command: Command) -> Result<Started, NotStarted> {
    refuse_privileged(&command)?;
    let group = Arc::new(Group::led_by(guardian()?));
    match begin(slot, &group, &mut command) {
        Ok(worker) => Ok(Started { group, worker }),
        Err((worker, why)) => Err(NotStarted { why, gone: finish(&group, worker).is_ok() }),
    }
}

fn guardian() -> io::Result<Pid> {
    let (mut reader, writer) = pipe()?;
    let pid = fork_guardian(writer.as_fd())?;
    drop(writer);
    let mut word = [0; 4];
    let prepared = reader.read_exact(&mut word).and_then(|()| match i32::from_ne_bytes(word) {
        0 => Ok(pid),
        errno => Err(io::Error::from_raw_os_error(errno)),
    });
    prepared.map_err(|error| {
        // It has no group to guard. It ends by itself, or by this.
        Group::led_by(pid).abandon();
        io::Error::new(error.kind(), format!("its guardian could not be prepared: {error}"))
    })
}

type Failed = (Option<Child>, io::Error);

fn begin(slot: &Slot, group: &Arc<Group>, command: &mut Command) -> Result<Child, Failed> {
    slot.fill(group.clone()).map_err(|why| (None, why))?;
    command.process_group(group.id.as_raw_pid());
    die_with_parent(command);
    let worker = command.spawn().map_err(|why| (None, why))?;
    match verify(slot, group, Pid::from_child(&worker)) {
        Ok(()) => Ok(worker),
        Err(why) => Err((Some(worker), why)),
    }
}

fn verify(slot: &Slot, group: &Group, worker: Pid) -> io::Result<()> {
    let _set_once = group.worker.set(pidfd_open(worker, PidfdFlags::empty())?);
    refuse_gained(worker)?;
    if getpgid(Some(worker))? != group.id {
        return Err(io::Error::other(
            "it has left its process group, and could not be found there at the end of the lease",
        ));
    }
    if group.is_unguarded()? {
        return Err(io::Error::other("its guardian has ended"));
    }
    // The lease may have ended before there was a worker to kill.
    slot.still_open()
}

/// Waits until the worker has ended, and then until no process of its group is left.
pub(super) fn outlive(started: Started) -> io::Result<ExitStatus> {
    let Started { group, worker } = started;
    let watched = watch(&group);
    if !matches!(watched, Ok(true)) && !group.is_killed() {
        tracing::error!(group = %group.id, ?watched, "a bound child has lost its guardian and is killed");
    }
    finish(&group, Some(worker))?.ok_or_else(|| io::Error::other("there was no worker"))
}

/// Waits until the worker or the guardian has ended. Whether it was the worker.
fn watch(group: &Group) -> io::Result<bool> {
    let Some(worker) = group.worker.get() else { return Ok(false) };
    let guardian = pidfd_open(group.id, PidfdFlags::empty())?;
    loop {
        let mut both = [PollFd::new(worker, PollFlags::IN), PollFd::new(&guardian, PollFlags::IN)];
        match poll(&mut both, None) {
            Ok(_) if !both[0].revents().is_empty() => return Ok(true),
            // When the whole group is killed, the guardian may be the first to die.
            Ok(_) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn finish(group: &Group, worker: Option<Child>) -> io::Result<Option<ExitStatus>> {
    group.kill()?;
    let status = worker.map(|mut worker| worker.wait()).transpose()?;
    group.end()?;
    Ok(status)
}
