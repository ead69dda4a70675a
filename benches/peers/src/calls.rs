//! The system calls of a process, counted by strace while it works, and the bytes that it writes to its files.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Command;
use tokio::time::sleep;

/// What a process asked of the kernel.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    pub all: u64,
    /// Writes to files, by `pwrite64` and its like.
    pub writes: u64,
    pub bytes: u64,
    pub syncs: u64,
    /// Writes to sockets, and not to other descriptors.
    pub sends: u64,
}

/// Traces a process for `time`. `None` where there is no strace.
pub async fn trace(pid: u32, time: Duration, folder: &Path) -> Result<Option<Calls>> {
    let out = folder.join("strace.out");
    let mut command = Command::new("strace");
    command.args(["-f", "-q", "-y", "-s", "0", "-p", &pid.to_string(), "-o"]).arg(&out);
    let Ok(mut strace) = command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn() else {
        return Ok(None);
    };
    sleep(time).await;
    let id = strace.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?)).context("strace")?;
    rustix::process::kill_process(id, rustix::process::Signal::INT)?;
    strace.wait().await?;
    Ok(Some(read(&std::fs::read_to_string(&out)?)))
}

/// Lines as `PID name(arguments) = result`; one that was interrupted by another thread goes on as `PID <... name resumed>`.
fn read(trace: &str) -> Calls {
    let mut calls = Calls::default();
    let mut by_name = BTreeMap::<&str, u64>::new();
    for line in trace.lines() {
        let Some((_, said)) = line.trim_start().split_once(' ') else { continue };
        let said = said.trim_start();
        let (name, begins) = match said.strip_prefix("<... ") {
            Some(rest) => (rest.split(' ').next().unwrap_or_default(), false),
            None => (said.split('(').next().unwrap_or_default(), true),
        };
        let ended = !said.ends_with("<unfinished ...>");
        if begins {
            *by_name.entry(name).or_default() += 1;
            // `-y` names what a descriptor is: `writev(15<socket:[88231]>, …`.
            let to_socket = said.split_once('<').is_some_and(|(_, what)| what.starts_with("socket:"));
            calls.sends += u64::from(to_socket && matches!(name, "sendto" | "sendmsg" | "writev" | "write"));
        }
        if ended && matches!(name, "pwrite64" | "pwritev" | "pwritev2") {
            let result = said.rsplit("= ").next().and_then(|result| result.split(' ').next()?.parse::<u64>().ok());
            calls.bytes += result.unwrap_or(0);
        }
    }
    let count = |names: &[&str]| names.iter().filter_map(|name| by_name.get(name)).sum();
    calls.all = by_name.values().sum();
    calls.writes = count(&["pwrite64", "pwritev", "pwritev2"]);
    calls.syncs = count(&["fsync", "fdatasync"]);
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_once_whether_or_not_another_thread_comes_between() {
        let calls = read(
            "1 pwrite64(3, \"\"..., 512, 0) = 512\n2 pwrite64(3, \"\"..., 1024, 0 <unfinished ...>\n\
             1 sendmsg(4<socket:[7]>, {}, 0) = 5\n1 write(5<anon_inode:[eventfd]>, \"\"..., 8) = 8\n2 <... pwrite64 resumed>) = 1024\n2 fdatasync(3) = 0\n",
        );
        assert_eq!((calls.all, calls.writes, calls.bytes, calls.syncs, calls.sends), (5, 2, 1536, 1, 1));
    }
}
