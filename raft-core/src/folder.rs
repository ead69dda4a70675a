//! The data folder: the node and cluster that it belongs to, and its lock for one process.
//!
//! ```text
//!   /var/lib/quorate/
//!   ├── lock        held by flock for as long as the process lives
//!   ├── node        this file: node, disk id, how often opened, cluster, a leave that was not committed
//!   ├── opener      which process has it, or had it last (opener.rs)
//!   └── raft.log    log, vote, snapshots
//! ```
//!
//! Each opening is counted, durably, before anything else is done with the folder. By that count the cluster tells a copy of
//! a disk from the original (see [`quorate_membership::Disk`]).

pub(crate) mod opener;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use quorate_membership::codec::{Enveloped, Kind, decode, encode};
use quorate_membership::{ClusterId, Disk, DiskId, Incarnation, NodeId};
use serde::{Deserialize, Serialize};

use crate::error::StartError;
use crate::host::random;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    node: NodeId,
    disk: Disk,
    cluster: Option<ClusterId>,
    /// The last life that had stopped all its work and could not commit its leave.
    left: Option<Incarnation>,
}

impl Enveloped for Owner {
    const KIND: Kind = Kind::Folder;
}

/// Where a folder's own file is kept.
pub(crate) trait FolderStorage: fmt::Debug + Send {
    /// What was saved last; `None` for a new folder.
    fn load(&self) -> Result<Option<Vec<u8>>, StartError>;

    /// Notes this process as the one that has the folder. Whether the one noted before is certainly gone.
    fn take_over(&self) -> io::Result<bool>;

    /// Replaces what was saved, durably and in one step: a crash leaves the old content or the new.
    fn save(&self, bytes: &[u8]) -> io::Result<()>;
}

/// An open data folder. Closed, and free for others, when dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    owner: Owner,
    former_gone: bool,
    storage: Box<dyn FolderStorage>,
}

impl Folder {
    /// Opens the folder for `node`, creates it if it does not exist, and counts the opening.
    pub(crate) fn open(path: &Path, node: NodeId) -> Result<Self, StartError> {
        Self::open_on(Box::new(Files::lock(path)?), path, node)
    }

    /// As [`Folder::open`], on storage that is open already.
    pub(crate) fn open_on(storage: Box<dyn FolderStorage>, path: &Path, node: NodeId) -> Result<Self, StartError> {
        let failed = |cause| StartError::Folder { path: path.into(), cause };
        let mut owner = match storage.load()? {
            Some(bytes) => decode::<Owner>(&bytes)
                .map_err(|e| StartError::Damaged { path: path.join(FILE), why: e.to_string() })?,
            None => Owner {
                node,
                disk: Disk { id: DiskId::new(random().map_err(failed)?), opened: 0 },
                cluster: None,
                left: None,
            },
        };
        if owner.node != node {
            return Err(StartError::OtherNode { path: path.into(), found: owner.node, wanted: node });
        }
        owner.disk.opened += 1;
        let former_gone = storage.take_over().map_err(failed)?;
        let folder = Self { path: path.into(), owner, former_gone, storage };
        folder.save().map_err(failed)?;
        Ok(folder)
    }

    /// Whether the process that had this folder last is known to be gone.
    pub(crate) fn former_gone(&self) -> bool {
        self.former_gone
    }

    pub(crate) fn disk(&self) -> Disk {
        self.owner.disk
    }

    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.owner.cluster
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.path.join(LOG)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Records, durably, the cluster that the folder belongs to from now on.
    pub(crate) fn set_cluster(&mut self, cluster: ClusterId) -> io::Result<()> {
        let before = self.owner.cluster.replace(cluster);
        self.save().inspect_err(|_| self.owner.cluster = before)
    }

    /// The last life that had stopped all its work and could not commit its leave.
    pub(crate) fn left(&self) -> Option<Incarnation> {
        self.owner.left
    }

    /// Records, durably, that this life has stopped all its work, and that its leave may not be committed.
    pub(crate) fn set_left(&mut self, life: Incarnation) -> io::Result<()> {
        let before = self.owner.left.replace(life);
        self.save().inspect_err(|_| self.owner.left = before)
    }

    fn save(&self) -> io::Result<()> {
        self.storage.save(&encode(&self.owner).map_err(io::Error::other)?)
    }
}

/// The name of the folder's own file.
const FILE: &str = "node";

/// The name of the log's file.
const LOG: &str = "raft.log";

/// What the log was called before the first release, in another format.
const FORMER_LOG: &str = "log.redb";

/// Files in a folder, and the lock on it.
#[derive(Debug)]
struct Files {
    path: PathBuf,
    _lock: File,
}

impl Files {
    fn lock(path: &Path) -> Result<Self, StartError> {
        let failed = |cause| StartError::Folder { path: path.into(), cause };
        std::fs::create_dir_all(path).map_err(failed)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock")).map_err(failed)?;
        let former = path.join(FORMER_LOG);
        if former.try_exists().map_err(failed)? {
            let why = format!(
                "{} is the log of a version before the first release, which this one cannot read; remove the node from its \
                 cluster and join under a new number with an empty folder",
                former.display()
            );
            return Err(failed(io::Error::new(io::ErrorKind::Unsupported, why)));
        }
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.into(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::InUse(path.into())),
            Err(errno) => Err(failed(errno.into())),
        }
    }
}

impl FolderStorage for Files {
    fn load(&self) -> Result<Option<Vec<u8>>, StartError> {
        let file = self.path.join(FILE);
        match std::fs::read(&file) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let log = self.path.join(LOG);
                if log.exists() {
                    let why = format!("{} exists without it", log.display());
                    return Err(StartError::Damaged { path: file, why });
                }
                Ok(None)
            }
            Err(cause) => Err(StartError::Folder { path: self.path.clone(), cause }),
        }
    }

    fn take_over(&self) -> io::Result<bool> {
        let former_gone = opener::is_gone(&self.path);
        opener::record(&self.path)?;
        Ok(former_gone)
    }

    fn save(&self, bytes: &[u8]) -> io::Result<()> {
        let (new, file) = (self.path.join("node.new"), self.path.join(FILE));
        let mut out = File::create(&new)?;
        out.write_all(bytes)?;
        out.sync_all()?;
        std::fs::rename(&new, &file)?;
        File::open(&self.path)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_disk_counts_its_openings_and_serves_one_node_and_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let (n1, cluster) = (NodeId::new(1), ClusterId::new(9));
        let mut first = Folder::open(dir.path(), n1).unwrap();
        let disk = first.disk();
        assert_eq!((disk.opened, first.cluster()), (1, None));
        first.set_cluster(cluster).unwrap();
        first.set_left(Incarnation::new(3)).unwrap();
        assert!(matches!(Folder::open(dir.path(), n1), Err(StartError::InUse(_))));
        drop(first);
        assert!(matches!(Folder::open(dir.path(), NodeId::new(2)), Err(StartError::OtherNode { .. })));
        let second = Folder::open(dir.path(), n1).unwrap();
        assert_eq!((second.disk(), second.cluster()), (Disk { opened: 2, ..disk }, Some(cluster)));
        assert_eq!(second.left(), Some(Incarnation::new(3)));
    }

    #[test]
    fn the_log_of_a_version_before_the_first_release_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log.redb");
        std::fs::write(&file, b"x").unwrap();
        let refused = Folder::open(dir.path(), NodeId::new(1)).unwrap_err();
        assert!(matches!(&refused, StartError::Folder { cause, .. } if cause.kind() == io::ErrorKind::Unsupported));
        assert!(refused.to_string().contains("join under a new number"), "{refused}");
        assert_eq!(std::fs::read(&file).unwrap(), b"x");
        assert!(!dir.path().join("node").exists());
    }

    #[test]
    fn a_damaged_folder_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        drop(Folder::open(dir.path(), NodeId::new(1)).unwrap());
        let file = dir.path().join("node");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        assert!(matches!(Folder::open(dir.path(), NodeId::new(1)), Err(StartError::Damaged { .. })));
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
        std::fs::remove_file(&file).unwrap();
        std::fs::write(dir.path().join("raft.log"), b"x").unwrap();
        assert!(matches!(Folder::open(dir.path(), NodeId::new(1)), Err(StartError::Damaged { .. })));
    }
}
