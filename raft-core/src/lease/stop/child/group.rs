//! A process group, killed as a whole, and searched for until no process of it is left.
//!
//! ```text
//!   kill(−group, SIGKILL) ─▶ /proc: which processes of this group are not dead? ─▶ none ─▶ the guardian is reaped
//!        the guardian leads the group; until it is reaped, the kernel gives its number to no other group
//! ```

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, getpid, kill_process, kill_process_group, pidfd_send_signal,
    waitid,
};

/// A group and its guardian.
#[derive(Debug)]
pub(super) struct Group {
    /// The number of the group, and of its guardian.
    pub(super) id: Pid,
    /// The child itself, once it was started. It is reached even if it leaves the group.
    pub(super) worker: OnceLock<OwnedFd>,
    fate: Mutex<Fate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Alive,
    Killed,
    /// The kernel may give its number to another process.
    Reaped,
}

impl Group {
    /// The group that `guardian`, an unreaped child of this process, leads.
    pub(super) fn led_by(guardian: Pid) -> Self {
        Self { id: guardian, worker: OnceLock::new(), fate: Mutex::new(Fate::Alive) }
    }

    /// Sends SIGKILL to every process of the group. Does not wait; does nothing once the group is gone.
    pub(super) fn kill(&self) -> io::Result<()> {
        let mut fate = self.fate.lock();
        if *fate == Fate::Reaped {
            return Ok(());
        }
        *fate = Fate::Killed;
        if let Some(worker) = self.worker.get() {
            sent(pidfd_send_signal(worker, Signal::KILL))?;
        }
        // Only an unreaped guardian holds the number.
        self.is_unguarded()?;
        sent(kill_process_group(self.id, Signal::KILL))
    }

    /// Asks the child itself to end (SIGTERM). Does nothing once the group was killed or is gone.
    pub(super) fn ask(&self) -> io::Result<()> {
        let fate = self.fate.lock();
        match (*fate, self.worker.get()) {
            (Fate::Alive, Some(worker)) => sent(pidfd_send_signal(worker, Signal::TERM)),
            (Fate::Alive | Fate::Killed | Fate::Reaped, _) => Ok(()),
        }
    }

    /// Whether this process has killed it.
    pub(super) fn is_killed(&self) -> bool {
        *self.fate.lock() != Fate::Alive
    }

    /// Whether the guardian is dead.
    pub(super) fn is_unguarded(&self) -> io::Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(self.wait(options)?.is_some())
    }

    /// Kills the processes of the group until none is left, and gives the number of the group back to the kernel.
    ///
    /// # Errors
    /// When /proc could not be read for five seconds. A process of the group may be left.
    pub(super) fn end(&self) -> io::Result<()> {
        let (mut pause, mut readable) = (Duration::from_millis(1), Instant::now());
        loop {
            match self.kill().and_then(|()| living(self.id)) {
                Ok(left) if left.is_empty() => break,
                // A process that waits in the kernel dies when it returns from there.
                Ok(_) => readable = Instant::now(),
                Err(error) if readable.elapsed() > Duration::from_secs(5) => return Err(error),
                Err(_) => {}
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        let mut fate = self.fate.lock();
        // It was seen dead: this does not block.
        self.wait(WaitIdOptions::EXITED)?;
        *fate = Fate::Reaped;
        Ok(())
    }

    /// Kills a guardian whose child was never started, and gives its number back.
    pub(super) fn abandon(&self) {
        let _dead_already = kill_process(self.id, Signal::KILL);
        let _reaped_elsewhere = self.wait(WaitIdOptions::EXITED);
    }

    fn wait(&self, options: WaitIdOptions) -> io::Result<Option<WaitIdStatus>> {
        waitid(WaitId::Pid(self.id), options).map_err(|errno| match errno {
            Errno::CHILD => io::Error::other(
                "other code of this process has waited for the guardian of a bound child, so the number of its group may \
                 belong to another group by now: wait for children by their number only",
            ),
            errno => errno.into(),
        })
    }
}

/// A process that is gone already needs no signal.
fn sent(outcome: Result<(), Errno>) -> io::Result<()> {
    match outcome {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The processes of that group that are not dead. An error never reads as "none".
pub(super) fn living(group: Pid) -> io::Result<Vec<i32>> {
    all_processes_are_shown()?;
    let mut found = vec![];
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Some((state, of)) = stat(&format!("/proc/{pid}/stat"))? else { continue };
        if of == group.as_raw_pid() && (!is_dead(state) || has_living_thread(pid)?) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// A /proc of another pid namespace, or one that hides the processes of others, would show an empty group.
fn all_processes_are_shown() -> io::Result<()> {
    let own = fs::read_link("/proc/self")?;
    if own.as_os_str().to_str() != Some(&getpid().as_raw_pid().to_string()) {
        return Err(io::Error::other("/proc is not that of this process's pid namespace"));
    }
    match fs::read("/proc/1/stat") {
        Ok(_) => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), format!("/proc hides processes (hidepid): {error}"))),
    }
}

fn is_dead(state: char) -> bool {
    matches!(state, 'Z' | 'X' | 'x')
}

/// The first thread of a process may have ended before the others.
fn has_living_thread(pid: i32) -> io::Result<bool> {
    let threads = match fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(threads) => threads,
        Err(error) if is_gone(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    for thread in threads {
        let path = match thread {
            Ok(thread) => thread.path().join("stat"),
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        if stat(&path.display().to_string())?.is_some_and(|(state, _)| !is_dead(state)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The state and the group of a process or thread; `None` when there is none any more.
fn stat(path: &str) -> io::Result<Option<(char, i32)>> {
    match fs::read(path) {
        Ok(bytes) => parse(&String::from_utf8_lossy(&bytes)).map(Some),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// `pid (name) state parent group …`; the name may hold anything, brackets and spaces too.
fn parse(line: &str) -> io::Result<(char, i32)> {
    let fields = line.rsplit_once(')').map(|(_, after)| after.split_whitespace().collect::<Vec<_>>());
    let parsed = fields.and_then(|fields| Some((fields.first()?.chars().next()?, fields.get(2)?.parse().ok()?)));
    parsed.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("not a line of /proc/…/stat: {line:?}")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        assert_eq!(parse("12 (a) b) R 1 77 3) S 1 42 42 0 -1").unwrap(), ('S', 42));
        assert!(parse("12 (a").is_err() && parse("12 (a) S 1 x").is_err());
    }

    #[test]
    fn the_dead_that_nobody_reaped_do_not_count() {
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let group = Pid::from_child(&child);
        assert_eq!(living(group).unwrap(), [group.as_raw_pid()]);
        child.kill().unwrap();
        let dead = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(group), dead).unwrap();
        assert_eq!(living(group).unwrap(), []);
        child.wait().unwrap();
    }
}
