//! The process that opened a data folder, and whether the one that had it before is gone.
//!
//! ```text
//!   opener:  pid 4711, started 8812345 ticks after the boot 3f2e…
//! ```
//!
//! The lock on the folder ends with the *node*, which may have been shut down while its process and the work in it go on. A
//! copy of the folder has a lock of its own. A life that reports that the process of its predecessor is gone (P3) must
//! therefore have looked for that process. Whatever is not certain counts as "not gone".

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::host::clock;

/// Records this process, durably.
pub(crate) fn record(folder: &Path) -> io::Result<()> {
    let me = std::process::id();
    let started = started(me)?.map_or_else(String::new, |ticks| ticks.to_string());
    let (new, file) = (folder.join("opener.new"), folder.join("opener"));
    let mut out = File::create(&new)?;
    writeln!(out, "{me} {started} {}", clock::boot_id())?;
    out.sync_all()?;
    fs::rename(&new, &file)
}

/// Whether the process recorded last ran in this boot and has certainly ended.
pub(crate) fn is_gone(folder: &Path) -> bool {
    let Ok(text) = fs::read_to_string(folder.join("opener")) else { return false };
    let words: Vec<&str> = text.split_whitespace().collect();
    let [pid, began, boot] = words[..] else { return false };
    let (Ok(pid), Ok(began)) = (pid.parse::<u32>(), began.parse::<u64>()) else { return false };
    if boot != clock::boot_id().to_string() {
        // Another rule covers other boots.
        return false;
    }
    match started(pid) {
        Ok(None) => true,
        Ok(Some(now)) => now != began,
        Err(_) => false,
    }
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
    // The name of the program, in parentheses, may contain anything.
    let odd = || io::Error::other(format!("/proc/{pid}/stat reads `{}`", text.trim()));
    let fields: Vec<&str> = text.rsplit_once(')').ok_or_else(odd)?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&("Z" | "X"))) {
        return Ok(None);
    }
    fields.get(19).and_then(|ticks| ticks.parse().ok()).map(Some).ok_or_else(odd)
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
