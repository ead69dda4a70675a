//! Processes as the kernel knows them: who is in a group, and whether it is the one that was meant.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};

/// Nanoseconds of CLOCK_MONOTONIC: comparable between all processes of one machine.
pub(crate) fn monotonic_ns() -> u64 {
    let spec = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    spec.tv_sec as u64 * 1_000_000_000 + spec.tv_nsec as u64
}

/// One process of `/proc`: its state letter, its group, and when it was started (in ticks since boot).
struct Stat {
    state: char,
    group: i32,
    started: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything, blanks and brackets included.
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let group = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(16)?.parse().ok()?;
    Some(Stat { state, group, started })
}

/// When a process was started; `None` if there is none of that number that still runs.
pub(crate) fn started(pid: i32) -> Option<u64> {
    stat(pid).filter(|s| !matches!(s.state, 'Z' | 'X')).map(|s| s.started)
}

/// Everybody in a process group who is not dead. A dead process that nobody has waited for counts as dead.
pub(crate) fn members(group: i32) -> Result<Vec<i32>> {
    let mut found = vec![];
    for entry in std::fs::read_dir("/proc").context("/proc is needed to see who is in a process group")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        if stat(pid).is_some_and(|s| s.group == group && !matches!(s.state, 'Z' | 'X')) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Kills a whole process group with SIGKILL. A group that is gone is no error.
pub(crate) fn kill_group(group: i32) -> Result<()> {
    let pid = Pid::from_raw(group).filter(|_| group > 1).with_context(|| format!("{group} is not a process group"))?;
    match rustix::process::kill_process_group(pid, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("killing the process group {group}")),
    }
}

/// Kills one process with SIGKILL and leaves the rest of its group alone.
pub(crate) fn kill_one(process: i32) -> Result<()> {
    let pid = Pid::from_raw(process).filter(|_| process > 1).with_context(|| format!("{process} is not a process"))?;
    rustix::process::kill_process(pid, Signal::KILL).with_context(|| format!("killing the process {process}"))
}

/// Ends this whole process group once the process `guardian`, started at `since`, is gone: nobody outlives the demo.
pub(crate) fn end_with(guardian: i32, since: u64) {
    std::thread::spawn(move || {
        while started(guardian) == Some(since) {
            std::thread::sleep(Duration::from_millis(200));
        }
        let _gone = kill_group(rustix::process::getpgrp().as_raw_nonzero().get());
    });
}

/// Reads a small file that another process may be about to replace.
pub(crate) fn read_numbers(path: &Path) -> Option<(i32, u64)> {
    let text = std::fs::read_to_string(path).ok()?;
    let (group, since) = text.trim().split_once(' ')?;
    Some((group.parse().ok()?, since.parse().ok()?))
}
