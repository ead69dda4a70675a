//! The process that opened a data folder, and whether the one that had it before is gone.
//!
//! ```text
//!   opener:  pid 4711, started 8812345 ticks after the boot 3f2e…, as numbered in pid:[4026531836] time:[4026531834]
//! ```
//!
//! The lock on the folder ends with the *node*, which may have been shut down while its process and the work in it go on. A
//! copy of the folder has a lock of its own. A life that reports that the process of its predecessor is gone (P3) must
//! therefore have looked for that process. Whatever is not certain counts as "not gone".
//!
//! The number of a process means something only in its PID namespace, and its start only in its time namespace. A process
//! of another namespace, such as another container, may be hidden from here while it runs, so it is never certainly gone.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use quorate_membership::BootId;

use crate::host::clock;

/// Records this process, durably.
pub(crate) fn record(folder: &Path) -> io::Result<()> {
    let me = std::process::id();
    let started = started(me)?.map_or_else(|| "-".into(), |ticks| ticks.to_string());
    let namespaces = namespaces().unwrap_or_else(|| "-".into());
    let (new, file) = (folder.join("opener.new"), folder.join("opener"));
    let mut out = File::create(&new)?;
    writeln!(out, "{me} {started} {} {namespaces}", clock::boot_id())?;
    out.sync_all()?;
    fs::rename(&new, &file)
}

/// Whether the process recorded last ran in this boot and in these namespaces, and has certainly ended.
pub(crate) fn is_gone(folder: &Path) -> bool {
    let Ok(text) = fs::read_to_string(folder.join("opener")) else { return false };
    let words: Vec<&str> = text.split_whitespace().collect();
    let [pid, began, boot, noted] = words[..] else { return false };
    let (Ok(pid), Ok(began)) = (pid.parse::<u32>(), began.parse::<u64>()) else { return false };
    let here = clock::boot_id();
    if here == BootId::default() || boot != here.to_string() {
        // Another rule covers other boots.
        return false;
    }
    if namespaces().is_none_or(|here| here != noted) && !quorate_membership::mutant!("namespace_ignored") {
        return false;
    }
    match started(pid) {
        Ok(None) => true,
        Ok(Some(now)) => now != began,
        Err(_) => false,
    }
}

/// The PID and time namespaces in which /proc and this process number processes and their starts. `None` where /proc
/// belongs to another PID namespace than this process, or does not tell.
///
/// The kernel may give the number of a namespace to another one, but only when no process is left in the first.
fn namespaces() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    // One number for each namespace from that of /proc down to the own: a second one means that they differ.
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    if numbers.split_whitespace().count() != 1 {
        return None;
    }
    let name = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).ok()?.into_os_string().into_string().ok();
    // A kernel before 5.6 has no time namespaces.
    Some(format!("{},{}", name("pid")?, name("time").unwrap_or_else(|| "-".into())))
}

/// When the process of that number began, in ticks since the boot; `None` if there is none, or only a zombie.
fn started(pid: u32) -> io::Result<Option<u64>> {
    let text = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        // A missing entry proves something only where /proc shows every process.
        Err(error) if error.kind() == io::ErrorKind::NotFound && Path::new("/proc/self/stat").exists() => {
            return if hidden()? { Err(io::Error::other("/proc hides processes")) } else { Ok(None) };
        }
        Err(error) => return Err(error),
    };
    start_in(&text).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat reads `{}`", text.trim())))
}

/// The start in a line of `/proc/PID/stat`: `Some(None)` for a zombie, `None` for a line that cannot be read.
fn start_in(stat: &str) -> Option<Option<u64>> {
    // The name of the program, in parentheses, may contain anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let (state, threads, start) = (fields.first()?, fields.get(17)?, fields.get(19)?.parse().ok()?);
    // A process whose first thread has ended is shown as a zombie while its other threads run.
    let zombie = matches!(*state, "Z" | "X") && threads.parse::<u32>().ok()? <= 1;
    Some((!zombie).then_some(start))
}

/// Whether /proc hides the processes of other users (`hidepid`).
fn hidden() -> io::Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let hides = |line: &str| {
        line.split(' ').nth(1) == Some("/proc") && line.contains("hidepid=") && !line.contains("hidepid=0")
    };
    Ok(mounts.lines().any(hides))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_is_certainly_gone_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_gone(folder.path()), "no process is known to have had it");
        record(folder.path()).unwrap();
        assert!(!is_gone(folder.path()), "this process is there");
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let began = started(child.id()).unwrap().unwrap();
        let noted = |pid: u32, began: u64, boot: BootId, namespaces: &str| {
            fs::write(folder.path().join("opener"), format!("{pid} {began} {boot} {namespaces}\n")).unwrap();
            is_gone(folder.path())
        };
        let note = |pid: u32, began: u64| noted(pid, began, clock::boot_id(), &namespaces().unwrap());
        assert!(!note(child.id(), began) && note(child.id(), began + 1), "another process under the same number");
        child.kill().unwrap();
        let stat = |pid| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        while !stat(child.id()).contains(") Z ") {
            std::thread::yield_now();
        }
        assert!(note(child.id(), began), "a zombie runs nothing any more");
        child.wait().unwrap();
        assert!(note(child.id(), began));
        assert!(!noted(child.id(), began, BootId::default(), &namespaces().unwrap()), "another boot");
        let here = namespaces().unwrap();
        let (pids, _times) = here.split_once(',').unwrap();
        for elsewhere in ["pid:[1],time:[1]", &format!("{pids},time:[1]"), "-", ""] {
            assert!(!noted(child.id(), began, clock::boot_id(), elsewhere), "another namespace: {elsewhere}");
        }
    }
    #[test]
    fn a_process_whose_first_thread_alone_has_ended_still_runs() {
        let stat = |state: char, threads: u32| {
            format!("41 (a) b) {state} 1 41 41 0 -1 4 0 0 0 0 7 3 0 0 20 0 {threads} 0 8812345 0 0 1844")
        };
        assert_eq!(start_in(&stat('S', 4)), Some(Some(8_812_345)));
        assert_eq!(start_in(&stat('Z', 1)), Some(None));
        assert_eq!(start_in(&stat('Z', 3)), Some(Some(8_812_345)));
        assert_eq!(start_in("41 (a"), None);
    }
}
