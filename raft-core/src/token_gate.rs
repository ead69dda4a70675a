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

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use quorate_membership::Revision;

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
    #[error("token {shown} could not be remembered in {}, so it was not admitted: {source}", path.display())]
    Unwritten {
        /// The token that was shown.
        shown: Revision,
        /// The file of the gate.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// Admits a token unless a larger one was shown before. Threads may share it by reference.
#[derive(Debug)]
pub struct TokenGate {
    seen: Mutex<Revision>,
    file: Option<PathBuf>,
    /// Locked while the gate exists: two gates on one file would not know each other's tokens.
    _lock: Option<File>,
}

impl TokenGate {
    /// A gate in memory, for a resource that does not outlive the process either.
    pub fn in_memory() -> Self {
        Self { seen: Mutex::default(), file: None, _lock: None }
    }

    /// A gate that remembers the largest token in a file of its own, synced before the token is admitted. The folder must
    /// exist. Beside the file there is one that ends in `.lock` and, at times, one that ends in `.new`.
    ///
    /// # Errors
    /// When another gate has the file, or when it cannot be read or holds no token: then it is not known which tokens were
    /// admitted, and no gate is opened.
    pub fn durable(file: impl AsRef<Path>) -> io::Result<Self> {
        let file = file.as_ref().to_path_buf();
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(beside(&file, ".lock"))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            let error = io::Error::from(error);
            io::Error::new(error.kind(), format!("{}: another gate has this file open: {error}", file.display()))
        })?;
        let seen = match File::open(&file) {
            Ok(_) if cfg!(quorate_mutant = "token_reused_after_restore") => Revision::default(),
            Ok(mut open) => {
                let mut text = String::new();
                open.read_to_string(&mut text)?;
                text.trim().parse().map_err(|error| {
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!(
                            "{}: {error}; restore the file, or remove it when nothing writes to the resource",
                            file.display()
                        ),
                    )
                })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Revision::default(),
            Err(error) => return Err(error),
        };
        if seen != Revision::default() {
            // A former process may have crashed between the renaming of the file and its sync.
            File::open(&file)?.sync_all()?;
            sync_folder_of(&file)?;
        }
        Ok(Self { seen: Mutex::new(seen), file: Some(file), _lock: Some(lock) })
    }

    /// The largest token that was admitted.
    pub fn seen(&self) -> Revision {
        *self.seen.lock()
    }

    /// Admits `token` unless a larger one was shown before. A larger token than ever before is remembered first; from then
    /// on smaller ones are refused. Only then the file is written.
    ///
    /// # Errors
    /// [`GateError`]: the resource must not be touched.
    pub fn admit(&self, token: Revision) -> Result<(), GateError> {
        self.admit_and(token, || ())
    }

    /// As [`Self::admit`], and calls `what` before a larger token is admitted, so that no effect of the former holder comes
    /// after the first effect of the next.
    ///
    /// # Errors
    /// [`GateError`]: `what` was not called.
    pub fn admit_and<T>(&self, token: Revision, what: impl FnOnce() -> T) -> Result<T, GateError> {
        let mut seen = self.seen.lock();
        if token < *seen {
            return Err(GateError::Superseded { shown: token, seen: *seen });
        }
        let news = token > *seen && !cfg!(quorate_mutant = "work_before_floor");
        if let Some(path) = self.file.as_ref().filter(|_| news) {
            remember(path, token).map_err(|source| GateError::Unwritten {
                shown: token,
                path: path.clone(),
                source,
            })?;
        }
        *seen = token;
        Ok(what())
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
        assert_eq!(gate.seen(), r(42));
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
        assert_eq!(gate.seen(), r(0));
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
        assert!(TokenGate::durable(&one).is_err(), "two gates on one file");
        drop(gates);
        let again = [one, two].map(|path| TokenGate::durable(path).unwrap().seen());
        assert_eq!(again, [r(199), r(1199)]);
    }
}
