//! The resource's side of fencing tokens: remembers the largest, refuses smaller ones.
//!
//! ```text
//!   admit(r42) ─▶ larger than any before: remembered (durably, where asked), then admitted
//!   admit(r42) ─▶ the same: admitted
//!   admit(r40) ─▶ refused: its holder was superseded, and may not know it yet
//! ```
//!
//! A gate makes a late write harmless, however long its writer was paused: a lease bounds time, and a token needs no bound.
//! Put it where the writes pass: in front of a file, a volume, a database.
//!
//! A durable gate is its file. Any number of processes may open it: each admission locks the file, reads what the others
//! have remembered, and only then admits.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_membership::Revision;
use rustix::fs::{FlockOperation, flock};

use crate::host::clock;

/// Why a token was not admitted. The resource was not touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// A larger token was shown before, so the holder of this one was superseded.
    #[error("token {shown} was superseded by {seen}; stop, and begin nothing under it any more")]
    Superseded {
        /// The token that was shown.
        shown: Revision,
        /// The largest token that was shown before.
        seen: Revision,
    },
    /// The token could not be remembered, so it was not admitted.
    #[error("token {shown} could not be remembered in {}, so it was not admitted: {cause}", path.display())]
    Unwritten {
        /// The token that was shown.
        shown: Revision,
        /// The file of the gate.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
    },
    /// The file could not be read, so it is not known whether a larger token was admitted.
    #[error("{} could not be read, so token {shown} was not admitted: {cause}", path.display())]
    Unread {
        /// The token that was shown.
        shown: Revision,
        /// The file of the gate.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
    },
    /// Another admission did not end in time. An effect of its token may still come, so this one was not admitted.
    #[error(
        "token {shown} was not admitted: {holder} has been using the gate for more than {waited:?}; end it, or try again"
    )]
    Busy {
        /// The token that was shown.
        shown: Revision,
        /// Who uses the gate, as far as it is known: `process 4711`.
        holder: String,
        /// How long this admission waited.
        waited: Duration,
    },
}

/// How long an admission waits for another one, unless [`TokenGate::timeout`] says otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How often a locked file is tried again.
const AGAIN: Duration = Duration::from_millis(1);

/// Admits a token unless a larger one was shown before. Threads may share it by reference, and processes by its file.
#[derive(Debug)]
pub struct TokenGate {
    /// The largest token that is known to be remembered durably.
    seen: Mutex<Revision>,
    shared: Option<Shared>,
    timeout: Duration,
}

/// The files of a durable gate.
#[derive(Debug)]
struct Shared {
    file: PathBuf,
    /// Locked during each admission. Its content names the process that admits.
    lock: File,
}

/// A locked gate. Dropping it unlocks it.
struct Locked<'g>(&'g Shared);

impl TokenGate {
    /// A gate in memory, for a resource that does not outlive the process either.
    pub fn in_memory() -> Self {
        Self { seen: Mutex::default(), shared: None, timeout: TIMEOUT }
    }

    /// A gate that remembers the largest token in a file of its own, synced before the token is admitted. The folder must
    /// exist. Beside the file there is one that ends in `.lock` and, at times, one that ends in `.new`. Other processes may
    /// open the same gate; none may remove its files while it is in use.
    ///
    /// # Errors
    /// When the file cannot be read or holds no token: then it is not known which tokens were admitted, and no gate is
    /// opened.
    pub fn durable(file: impl AsRef<Path>) -> io::Result<Self> {
        let file = file.as_ref().to_path_buf();
        let lock =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(beside(&file, ".lock"))?;
        let shared = Shared { file, lock };
        // The first admission makes sure that what was remembered is durable.
        shared.remembered()?;
        Ok(Self { seen: Mutex::default(), shared: Some(shared), timeout: TIMEOUT })
    }

    /// Sets how long an admission may wait for another one to end. Default: 5 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The largest token that was admitted. The gate of another process may have admitted a larger one meanwhile.
    ///
    /// # Errors
    /// When the file of a durable gate cannot be read.
    pub fn seen(&self) -> io::Result<Revision> {
        self.shared.as_ref().map_or_else(|| Ok(*self.seen.lock()), Shared::remembered)
    }

    /// Admits `token` unless a larger one was shown before. A larger token than ever before is remembered first; from then
    /// on smaller ones are refused. Only then the file is written. Blocks while another admission is under way.
    ///
    /// # Errors
    /// [`GateError`]: the resource must not be touched.
    pub fn admit(&self, token: Revision) -> Result<(), GateError> {
        self.admit_and(token, || ())
    }

    /// As [`Self::admit`], and calls `what` before a larger token is admitted, so that no effect of the former holder comes
    /// after the first effect of the next. Other admissions wait for it, those of other processes too, so it must be short.
    ///
    /// # Errors
    /// [`GateError`]: `what` was not called.
    pub fn admit_and<T>(&self, token: Revision, what: impl FnOnce() -> T) -> Result<T, GateError> {
        let began = clock::now();
        let busy = |holder| GateError::Busy { shown: token, holder, waited: self.timeout };
        let Some(mut seen) = self.seen.try_lock_for(self.timeout) else {
            return Err(busy("another thread of this process".into()));
        };
        let Some(shared) = &self.shared else {
            if token < *seen {
                return Err(GateError::Superseded { shown: token, seen: *seen });
            }
            *seen = token;
            return Ok(what());
        };
        let path = || shared.file.clone();
        let unread = |cause| GateError::Unread { shown: token, path: path(), cause };
        let unwritten = |cause| GateError::Unwritten { shown: token, path: path(), cause };
        let _locked = loop {
            if let Some(locked) = shared.try_lock().map_err(unread)? {
                break locked;
            }
            if clock::now().since(began) >= self.timeout {
                return Err(busy(shared.holder()));
            }
            std::thread::sleep(AGAIN);
        };
        let remembered = shared.remembered().map_err(unread)?;
        if token < remembered {
            return Err(GateError::Superseded { shown: token, seen: remembered });
        }
        if remembered != *seen {
            // Whoever wrote it may have crashed between the renaming of the file and its sync.
            shared.sync().map_err(unwritten)?;
            *seen = remembered;
        }
        if token > remembered && !quorate_membership::mutant!("work_before_floor") {
            remember(&shared.file, token).map_err(unwritten)?;
        }
        *seen = token;
        Ok(what())
    }
}

impl Shared {
    /// The token in the file; zero before the first.
    fn remembered(&self) -> io::Result<Revision> {
        let mut text = String::new();
        match File::open(&self.file) {
            Ok(_) if quorate_membership::mutant!("token_reused_after_restore") => return Ok(Revision::default()),
            Ok(mut open) => open.read_to_string(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Revision::default()),
            Err(error) => return Err(error),
        };
        text.trim().parse().map_err(|error| {
            let file = self.file.display();
            let why = format!("{file}: {error}; restore the file, or remove it when nothing writes to the resource");
            io::Error::new(io::ErrorKind::InvalidData, why)
        })
    }

    fn try_lock(&self) -> io::Result<Option<Locked<'_>>> {
        match flock(&self.lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        let locked = Locked(self);
        // For the error of those who wait. Should the disk be full, they are told of no process, and never of a wrong one.
        let name = format!("process {}", std::process::id());
        if self.holder() != name && rustix::io::pwrite(&self.lock, format!("{name:<20}").as_bytes(), 0) != Ok(20) {
            self.lock.set_len(0)?;
        }
        Ok(Some(locked))
    }

    /// Who has the lock, as far as it is known.
    fn holder(&self) -> String {
        let mut name = [0; 20];
        let read = rustix::io::pread(&self.lock, &mut name, 0).unwrap_or(0);
        let name = String::from_utf8_lossy(name.get(..read).unwrap_or_default()).trim().to_string();
        if name.is_empty() { "another process".into() } else { name }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.file)?.sync_all()?;
        sync_folder_of(&self.file)
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // It fails only for what is no open file; and closing the file unlocks it, too.
        let _unlocked = flock(&self.0.lock, FlockOperation::Unlock);
    }
}

/// Replaces the content of the file in one step, durably.
fn remember(path: &Path, token: Revision) -> io::Result<()> {
    let fresh = beside(path, ".new");
    let mut file = File::create(&fresh)?;
    writeln!(file, "{token}")?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    sync_folder_of(path)
}

/// The path with `end` appended to the whole name, so that no two gates of one folder share a file.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn r(number: u64) -> Revision {
        Revision::new(number)
    }

    #[test]
    fn smaller_tokens_are_refused_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let gate = TokenGate::durable(&path).unwrap();
        assert!(gate.admit(r(40)).is_ok() && gate.admit(r(40)).is_ok() && gate.admit(r(42)).is_ok());
        assert!(matches!(gate.admit(r(41)), Err(GateError::Superseded { .. })));
        drop(gate);
        let gate = TokenGate::durable(&path).unwrap();
        assert_eq!(gate.seen().unwrap(), r(42));
        assert!(gate.admit_and(r(41), || unreachable!("it was superseded")).is_err());
    }

    #[test]
    fn nothing_is_done_under_a_token_before_it_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let gate = TokenGate::durable(&path).unwrap();
        for token in [r(1), r(40), r(41)] {
            let found = gate.admit_and(token, || fs::read_to_string(&path).unwrap_or_default()).unwrap();
            assert_eq!(found.trim(), token.to_string(), "the floor was not there yet");
        }
    }

    #[test]
    fn what_cannot_be_remembered_or_read_admits_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        fs::create_dir(&gone).unwrap();
        let gate = TokenGate::durable(gone.join("token")).unwrap();
        fs::remove_dir_all(&gone).unwrap();
        assert!(matches!(gate.admit(r(1)), Err(GateError::Unwritten { .. })));
        assert_eq!(gate.seen().unwrap(), r(0));
        let path = folder.path().join("token");
        fs::write(&path, "nonsense").unwrap();
        let error = TokenGate::durable(&path).unwrap_err().to_string();
        assert!(error.contains("`nonsense` is not a revision"), "{error}");
    }

    #[test]
    fn gates_beside_each_other_do_not_touch_what_the_other_remembers() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["vm.100", "vm.101"].map(|name| folder.path().join(name));
        let gates = [TokenGate::durable(&one).unwrap(), TokenGate::durable(&two).unwrap()];
        let (a, b) = (&gates[0], &gates[1]);
        std::thread::scope(|scope| {
            scope.spawn(|| (1..200).for_each(|token| a.admit(r(token)).unwrap()));
            scope.spawn(|| (1000..1200).for_each(|token| b.admit(r(token)).unwrap()));
        });
        drop(gates);
        let again = [one, two].map(|path| TokenGate::durable(path).unwrap().seen().unwrap());
        assert_eq!(again, [r(199), r(1199)]);
    }

    #[test]
    fn gates_on_one_file_know_each_others_tokens_and_admit_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let open = || TokenGate::durable(&path).unwrap().timeout(Duration::from_millis(50));
        let [former, next] = [open(), open()];
        former.admit(r(40)).unwrap();
        let held = former.admit_and(r(40), || next.admit(r(42)).unwrap_err()).unwrap().to_string();
        assert!(held.contains(&format!("process {}", std::process::id())) && held.contains("50ms"), "{held}");
        let inside = former.admit_and(r(40), || former.admit(r(40)).unwrap_err()).unwrap().to_string();
        assert!(inside.contains("another thread"), "{inside}");
        next.admit(r(42)).unwrap();
        let late = former.admit_and(r(40), || unreachable!("it was superseded")).unwrap_err().to_string();
        assert!(late.contains("superseded by r42"), "{late}");
        assert_eq!(former.seen().unwrap(), r(42));
    }
}
