//! Which process opened a data folder, and whether the one that had it last is gone.
//!
//! ```text
//!   opener:  pid 4711, started 8812345 ticks after the boot 3f2e…
//! ```
//!
//! The lock on the folder ends with the *node*, which may have been shut down while its process, and the work in it, goes
//! on; and a copy of the folder has a lock of its own. So a life that says that its predecessor's process is gone (P3) has
//! to have looked for that process. Anything that cannot be told for certain is "not gone".

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::host::clock;

/// Notes this process, durably.
pub(crate) fn record(folder: &Path) -> io::Result<()> {
    let me = std::process::id();
    let started = started(me)?.map_or_else(String::new, |ticks| ticks.to_string());
    let (new, file) = (folder.join("opener.new"), folder.join("opener"));
    let mut out = File::create(&new)?;
    writeln!(out, "{me} {started} {}", clock::boot_id())?;
    out.sync_all()?;
    fs::rename(&new, &file)
}

/// Whether the process noted last ran in this boot, as far as can be told, and is there no more.
pub(crate) fn is_gone(folder: &Path) -> bool {
    let Ok(text) = fs::read_to_string(folder.join("opener")) else { return false };
    let words: Vec<&str> = text.split_whitespace().collect();
    let [pid, began, boot] = words[..] else { return false };
    let (Ok(pid), Ok(began)) = (pid.parse::<u32>(), began.parse::<u64>()) else { return false };
    if boot != clock::boot_id().to_string() {
        // Another boot: another rule's business.
        return false;
    }
    match started(pid) {
        Ok(None) => true,
        Ok(Some(now)) => now != began,
        Err(_) => false,
    }
}

/// When a process of that number began, in ticks since the boot; `None` if there is none, or only what its parent has not
/// collected of it yet.
fn started(pid: u32) -> io::Result<Option<u64>> {
    let text = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        // Only where /proc shows every process does its silence tell anything.
        Err(error) if error.kind() == io::ErrorKind::NotFound && Path::new("/proc/self/stat").exists() => {
            return if hidden()? { Err(io::Error::other("/proc hides processes")) } else { Ok(None) };
        }
        Err(error) => return Err(error),
    };
    // The name of the program, in parentheses, may contain anything.
    let odd = || io::Error::other(format!("/proc/{pid}/stat reads `{}`", text.trim()));
    let fields: Vec<&str> = text.rsplit_once(')').ok_or_else(odd)?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&("Z" | "X"))) {
        return Ok(None);
    }
    fields.get(19).and_then(|ticks| ticks.parse().ok()).map(Some).ok_or_else(odd)
}

/// Whether processes of others are hidden from this one (`hidepid`).
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
        assert!(!is_gone(folder.path()), "nobody is known to have had it");
        record(folder.path()).unwrap();
        assert!(!is_gone(folder.path()), "this process is there");
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let began = started(child.id()).unwrap().unwrap();
        let note = |pid: u32, began: u64| {
            fs::write(folder.path().join("opener"), format!("{pid} {began} {}\n", clock::boot_id())).unwrap();
            is_gone(folder.path())
        };
        assert!(!note(child.id(), began) && note(child.id(), began + 1), "another process under the same number");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(note(child.id(), began));
        fs::write(folder.path().join("opener"), format!("{} {began} {}\n", child.id(), "0".repeat(32))).unwrap();
        assert!(!is_gone(folder.path()), "another boot");
    }
}
