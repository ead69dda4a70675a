//! Refuses programs that would lose the signal of their parent's death.
//!
//! The kernel clears that signal when a program gains privileges as it starts: by the setuid or setgid bit, by the
//! capabilities of its file, by a rule of the security module. The first two are seen before anything is started; all of
//! them afterwards, in what the kernel told the program itself (AT_SECURE).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Pid;

/// Refuses `command` if the file that it names, or what interprets that file, gains privileges. A file that is not found
/// is left to the start, which then fails for a reason of its own.
pub(super) fn refuse_privileged(command: &Command) -> io::Result<()> {
    let mut next = file_of(command);
    // As deep as the kernel follows interpreters.
    for _ in 0..5 {
        let Some(path) = next else { return Ok(()) };
        let Ok(about) = path.metadata() else { return Ok(()) };
        let gains = match about.permissions().mode() {
            mode if mode & 0o4000 != 0 => "is setuid",
            mode if mode & 0o2000 != 0 => "is setgid",
            _ if has_capabilities(&path)? => "has file capabilities",
            _ => "",
        };
        if !gains.is_empty() {
            return Err(refusal(&format!("{} {gains}", path.display())));
        }
        next = interpreter(&path);
    }
    Ok(())
}

fn refusal(what: &str) -> io::Error {
    let why = "the kernel takes the signal of its parent's death from such a program, so it could outlive the lease; \
               start what it starts directly, as the user that it is to run as";
    io::Error::new(ErrorKind::PermissionDenied, format!("{what}: {why}"))
}

/// The file that is going to be executed, as execvp finds it.
fn file_of(command: &Command) -> Option<PathBuf> {
    let program = Path::new(command.get_program());
    if command.get_program().as_bytes().contains(&b'/') {
        return Some(command.get_current_dir().map_or_else(|| program.into(), |folder| folder.join(program)));
    }
    let own = command.get_envs().find(|(name, _)| *name == OsStr::new("PATH"));
    let path = match own {
        Some((_, value)) => value.map(OsStr::to_os_string),
        None => std::env::var_os("PATH"),
    };
    let path = path.unwrap_or_else(|| "/bin:/usr/bin".into());
    let executable = |file: &PathBuf| file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(executable)
}

fn has_capabilities(path: &Path) -> io::Result<bool> {
    let mut nothing: [u8; 0] = [];
    match rustix::fs::getxattr(path, "security.capability", &mut nothing) {
        Ok(length) => Ok(length > 0),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(io::Error::new(
            ErrorKind::PermissionDenied,
            format!("whether {} has file capabilities cannot be read: {errno}", path.display()),
        )),
    }
}

/// What runs a script: the word after `#!`.
fn interpreter(path: &Path) -> Option<PathBuf> {
    let mut head = [0; 256];
    let length = File::open(path).ok()?.read(&mut head).ok()?;
    let line = head[..length].strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let word = line.split(|byte| matches!(byte, b' ' | b'\t')).find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(word)))
}

/// For how long a program may take to be told what it is: microseconds, on a machine that runs at all.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Refuses `child`, which was just started, if it has gained privileges all the same.
pub(super) fn refuse_gained(child: Pid) -> io::Result<()> {
    let began = Instant::now();
    while began.elapsed() < TIMEOUT {
        match std::fs::read(format!("/proc/{child}/auxv")) {
            // It has ended already.
            Ok(bytes) if bytes.is_empty() => return Ok(()),
            Err(error)
                if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) =>
            {
                return Ok(());
            }
            // Another user's, and this process may not look into it: then by whom it runs is all there is to see.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return refuse_foreign(child),
            Err(error) => return Err(error),
            Ok(bytes) => match secure(&bytes) {
                Some(false) => return Ok(()),
                Some(true) => return Err(refusal("it has gained privileges as it started")),
                // The kernel has not written it yet.
                None => std::thread::sleep(Duration::from_millis(1)),
            },
        }
    }
    Err(io::Error::new(ErrorKind::TimedOut, "whether it has gained privileges could not be found out"))
}

/// AT_SECURE in the vector of a program of either word size; `None` if it is not there.
fn secure(auxv: &[u8]) -> Option<bool> {
    const AT_SECURE: u64 = 23;
    let word = |bytes: &[u8]| match bytes.try_into() {
        Ok(wide) => u64::from_ne_bytes(wide),
        Err(_) => bytes.try_into().map_or(0, |narrow| u64::from(u32::from_ne_bytes(narrow))),
    };
    let find = |size: usize| {
        let mut pairs = auxv.chunks_exact(2 * size).map(|pair| (word(&pair[..size]), word(&pair[size..])));
        pairs.find(|(key, _)| *key == AT_SECURE).map(|(_, value)| value != 0)
    };
    find(8).or_else(|| find(4))
}

fn refuse_foreign(child: Pid) -> io::Result<()> {
    let status = std::fs::read_to_string(format!("/proc/{child}/status"))?;
    let same = |field: &str| {
        let ids = status.lines().find_map(|line| line.strip_prefix(field))?;
        let mut ids = ids.split_whitespace();
        let first = ids.next()?;
        Some(ids.all(|id| id == first))
    };
    match (same("Uid:"), same("Gid:")) {
        (Some(true), Some(true)) => Ok(()),
        _ => Err(refusal("it has gained privileges as it started")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_gains_privileges_is_refused_before_it_is_started() {
        let folder = tempfile::tempdir().unwrap();
        let (tool, script) = (folder.path().join("tool"), folder.path().join("script"));
        std::fs::write(&tool, "not a program").unwrap();
        std::fs::write(&script, format!("#! {} -x\n", tool.display())).unwrap();
        let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        let found = || {
            let mut by_path = Command::new("tool");
            by_path.env("PATH", folder.path());
            [Command::new(&tool), Command::new(&script), by_path]
                .map(|c| refuse_privileged(&c).map_err(|e| e.to_string()))
        };
        set(&tool, 0o755);
        assert_eq!(found(), [Ok(()), Ok(()), Ok(())]);
        for (mode, word) in [(0o4755, "is setuid"), (0o2755, "is setgid")] {
            set(&tool, mode);
            for refused in found() {
                let why = refused.unwrap_err();
                assert!(why.contains(word) && why.contains("outlive the lease"), "{why}");
            }
        }
    }

    #[test]
    fn the_vector_of_a_program_is_read_in_either_word_size() {
        let wide = |value: u64| {
            [[6_u64, 4096], [23, value], [0, 0]].concat().iter().flat_map(|w| w.to_ne_bytes()).collect::<Vec<_>>()
        };
        let narrow = |value: u32| {
            [[6_u32, 4096], [23, value], [0, 0]].concat().iter().flat_map(|w| w.to_ne_bytes()).collect::<Vec<_>>()
        };
        assert_eq!((secure(&wide(0)), secure(&wide(1))), (Some(false), Some(true)));
        assert_eq!((secure(&narrow(0)), secure(&narrow(1))), (Some(false), Some(true)));
        assert_eq!(secure(&[0; 16]), None);
        let own = std::fs::read("/proc/self/auxv").unwrap();
        assert_eq!(secure(&own), Some(false));
    }
}
