//! Who a data folder belongs to, and that only one process has it.
//!
//! ```text
//!   /var/lib/quorate/
//!   ├── lock        held by flock for as long as the process lives
//!   ├── node        this file: node, disk id, how often opened, cluster
//!   ├── opener      which process has it, or had it last (opener.rs)
//!   └── log.redb    log, vote, snapshots
//! ```
//!
//! The count of openings goes up, durably, before anything else is done with the folder: it is how the cluster tells a
//! copy of a disk from the original (see [`quorate_membership::Disk`]).

pub(crate) mod opener;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use quorate_membership::codec::{Enveloped, Kind, decode, encode};
use quorate_membership::{ClusterId, Disk, DiskId, NodeId};
use serde::{Deserialize, Serialize};

use crate::error::StartError;
use crate::host::random;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    node: NodeId,
    disk: Disk,
    cluster: Option<ClusterId>,
}

impl Enveloped for Owner {
    const KIND: Kind = Kind::Folder;
}

/// An open data folder. Closed, and free for others, when dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    owner: Owner,
    former_gone: bool,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// Files, and the lock on them.
    Files { _lock: File },
    #[cfg(any(test, feature = "testing"))]
    Simulated(std::sync::Arc<crate::testing::sim::Host>),
}

impl Folder {
    /// Opens the folder for `node`, making it if need be, and counts the opening.
    pub(crate) fn open(path: &Path, node: NodeId) -> Result<Self, StartError> {
        let failed = |source| StartError::Folder { path: path.into(), source };
        std::fs::create_dir_all(path).map_err(failed)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock")).map_err(failed)?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StartError::InUse(path.into())),
            Err(errno) => return Err(failed(errno.into())),
        }
        let file = path.join("node");
        let mut owner = match std::fs::read(&file) {
            Ok(bytes) => {
                decode::<Owner>(&bytes).map_err(|e| StartError::Damaged { path: file.clone(), why: e.to_string() })?
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let log = path.join("log.redb");
                if log.exists() {
                    let why = format!("{} is there without it", log.display());
                    return Err(StartError::Damaged { path: file, why });
                }
                let id = DiskId::new(random().map_err(failed)?);
                Owner { node, disk: Disk { id, opened: 0 }, cluster: None }
            }
            Err(e) => return Err(failed(e)),
        };
        if owner.node != node {
            return Err(StartError::OtherNode { path: path.into(), found: owner.node, wanted: node });
        }
        owner.disk.opened += 1;
        let former_gone = opener::is_gone(path);
        opener::record(path).map_err(failed)?;
        let folder = Self { path: path.into(), owner, former_gone, place: Place::Files { _lock: lock } };
        folder.save().map_err(failed)?;
        Ok(folder)
    }

    /// Opens the folder of a simulated machine.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn simulated(host: std::sync::Arc<crate::testing::sim::Host>, node: NodeId) -> Result<Self, StartError> {
        let path = PathBuf::from(format!("simulated/{node}"));
        let failed = |source| StartError::Folder { path: path.clone(), source };
        let mut owner = match host.sim_disk().folder() {
            Some(bytes) => {
                decode::<Owner>(&bytes).map_err(|e| StartError::Damaged { path: path.clone(), why: e.to_string() })?
            }
            None => Owner { node, disk: Disk { id: DiskId::new(random().map_err(failed)?), opened: 0 }, cluster: None },
        };
        owner.disk.opened += 1;
        let boot = host.boot_id();
        // Whoever had it before on this machine has ended: one process runs there at a time.
        let former_gone = host.sim_disk().opener(boot) == Some(boot);
        let folder = Self { path: path.clone(), owner, former_gone, place: Place::Simulated(host) };
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
        self.path.join("log.redb")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Records, durably, the cluster that the folder belongs to from now on.
    pub(crate) fn set_cluster(&mut self, cluster: ClusterId) -> io::Result<()> {
        let before = self.owner.cluster.replace(cluster);
        self.save().inspect_err(|_| self.owner.cluster = before)
    }

    /// Replaces the file in one step: a crash leaves the old one or the new one.
    fn save(&self) -> io::Result<()> {
        match &self.place {
            Place::Files { .. } => {}
            #[cfg(any(test, feature = "testing"))]
            Place::Simulated(host) => {
                host.sim_disk().set_folder(encode(&self.owner).map_err(io::Error::other)?);
                return Ok(());
            }
        }
        let (new, file) = (self.path.join("node.new"), self.path.join("node"));
        let mut out = File::create(&new)?;
        out.write_all(&encode(&self.owner).map_err(io::Error::other)?)?;
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
        assert!(matches!(Folder::open(dir.path(), n1), Err(StartError::InUse(_))));
        drop(first);
        assert!(matches!(Folder::open(dir.path(), NodeId::new(2)), Err(StartError::OtherNode { .. })));
        let second = Folder::open(dir.path(), n1).unwrap();
        assert_eq!((second.disk(), second.cluster()), (Disk { opened: 2, ..disk }, Some(cluster)));
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
        std::fs::write(dir.path().join("log.redb"), b"x").unwrap();
        assert!(matches!(Folder::open(dir.path(), NodeId::new(1)), Err(StartError::Damaged { .. })));
    }
}
