//! How a node founds a cluster, and to which cluster a data folder belongs.
//!
//! ```text
//!   bootstrap ─▶ folder belongs to none? ─▶ Raft with one voter ─▶ Found ─▶ folder marked with the cluster ─▶ Join
//!                  │ it belongs to one
//!                  └──▶ StartError::Occupied: resume it, or use an empty folder
//! ```
//!
//! Each step may be repeated after a crash: Raft is initialized once, `Found` once, and the join carries its nonce.

use std::time::Duration;

use quorate_membership::{ClusterId, Command, Identity, Role};

use crate::error::StartError;
use crate::host::random;
use crate::member::join::Entrance;

impl Entrance {
    /// Founds a cluster with this node as its only voter. Repeated after a crash, it continues where it was.
    ///
    /// # Errors
    /// [`StartError::Occupied`] when the folder already belongs to a cluster; use `resume`. [`StartError::Config`] for
    /// any role but voter. Neither changes anything.
    pub(crate) async fn bootstrap(&self, role: Role, timeout: Duration) -> Result<Identity, StartError> {
        let engine = &self.engine;
        self.vacant()?;
        if role != Role::Voter {
            let why =
                "the founder must be a voter that carries work; change its role once another voter has joined".into();
            return Err(StartError::Config { what: "the role of the founder", value: role.to_string(), why });
        }
        let failed = |e: &dyn std::fmt::Display| StartError::Engine(e.to_string());
        engine.found(timeout).await.map_err(|e| failed(&e))?;
        let cluster = match engine.state().id() {
            Some(begun) => begun,
            None => {
                let cluster = ClusterId::new(random().map_err(|e| failed(&e))?);
                engine.propose(Command::Found { cluster }, timeout).await?;
                cluster
            }
        };
        self.belong_to(cluster)?;
        self.announce(role, &[], timeout).await
    }

    /// Checks that the data folder belongs to no cluster yet.
    ///
    /// # Errors
    /// [`StartError::Occupied`] names the cluster that it belongs to.
    pub(super) fn vacant(&self) -> Result<(), StartError> {
        match self.engine.peers().cluster() {
            Some(cluster) => Err(StartError::Occupied { path: self.engine.data().to_path_buf(), cluster }),
            None => Ok(()),
        }
    }

    /// Marks the data folder, durably, with the cluster that it belongs to from now on.
    ///
    /// # Errors
    /// [`StartError::Folder`] when the mark cannot be written; the folder is as it was.
    pub(super) fn belong_to(&self, cluster: ClusterId) -> Result<(), StartError> {
        let mut folder = self.folder.lock();
        if let Some(folder) = folder.as_mut() {
            let path = folder.path().to_path_buf();
            folder.set_cluster(cluster).map_err(|cause| StartError::Folder { path, cause })?;
        }
        self.engine.peers().set_cluster(cluster);
        Ok(())
    }
}
