//! The ways into a cluster: found one, join one at an address or with a token, or come back.
//!
//! ```text
//!   Ready ──▶ keys ──▶ ports, folder, log (open.rs) ──▶ bootstrap | join | resume ──▶ Cluster, or everything stopped again
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quorate_membership::{Address, Identity};
use quorate_raft_core::{Node, StartError};
use quorate_transport_grpc::enrollment::{EnrollError, enroll};
use quorate_transport_grpc::tls::{CredentialsError, JoinToken, Tls};
use tokio::time::Instant;

use super::{Ready, Security, Wire};
use crate::cluster::Cluster;
use crate::listening::{Listening, addresses, invalid, reachable};

impl Ready {
    /// Founds a new cluster with this node as its only member. The data folder must not belong to a cluster. Returns
    /// when this life has joined; [`Cluster::active`] waits until it may be given work.
    ///
    /// # Errors
    /// [`StartError`]. After a crash or a failure part-way, call it again and it continues. [`StartError::Occupied`]
    /// means that the folder already belongs to a cluster, perhaps the one that an earlier attempt founded; use
    /// `resume` then.
    pub async fn bootstrap(self) -> Result<Cluster, StartError> {
        let (role, timeout) = (self.role, self.timeout);
        let (node, listening) = self.with_keys(Keys::Found).await?.open().await?;
        let entered = node.bootstrap(role, timeout).await;
        finish(node, listening, entered).await
    }

    /// Joins the cluster that the nodes at `seeds` belong to. A seed is a host and a port, such as `10.0.0.1:7400`; one
    /// that answers is enough. The data folder must not belong to a cluster. Returns when this life has joined.
    ///
    /// # Errors
    /// [`StartError::Join`] with the last answer of a seed: nothing was changed here, though an answer that got lost
    /// may have made this node a member; joining again is safe. [`StartError::Occupied`] for a folder that belongs to a
    /// cluster, and [`StartError::Config`] for a seed that is not an address. [`StartError::NotActive`] when this node
    /// became a member, but the log did not arrive in time.
    pub async fn join(self, seeds: impl IntoIterator<Item = impl Into<String>>) -> Result<Cluster, StartError> {
        let seeds = addresses("a seed", seeds.into_iter().map(Into::into))?;
        if matches!(self.wire, Wire::Socket(..)) {
            reachable("a seed", &seeds)?;
        }
        let (role, timeout) = (self.role, self.timeout);
        let (node, listening) = self.with_keys(Keys::Kept).await?.open().await?;
        let entered = node.join(&seeds, role, timeout).await;
        finish(node, listening, entered).await
    }

    /// Joins a cluster with a token from [`Cluster::invite`]: gets the certificate of the node that the token names, which has to be
    /// this one, and joins in the role of the token. For a node that listens with [`listen`](super::WantsWire::listen). The key of the certificate
    /// is made here, and never leaves this machine. After a failure part-way call it again: the certificate is kept. A member whose
    /// certificate has expired while it was off calls it as well, with the token that it came with, and is resumed.
    ///
    /// # Errors
    /// [`StartError::Join`] when a node refused the token, or none gave a certificate in time: nothing was changed here but a key
    /// that is used the next time. [`StartError::Config`] for a token of another node. For the rest see [`Self::join`].
    pub async fn join_with(mut self, token: &JoinToken) -> Result<Cluster, StartError> {
        if !matches!(self.wire, Wire::Socket(_, Security::Own(_))) {
            let why = "a token is for a node that listens with `listen`";
            return Err(invalid("the join token", &format!("that of {}", token.node()), &why));
        }
        if token.node() != self.node {
            let why = format!("this node is {}", self.node);
            return Err(invalid("the join token", &format!("that of {}", token.node()), &why));
        }
        let began = Instant::now();
        enroll(&self.data, token, self.timeout).await.map_err(|error| match error {
            EnrollError::Keys(error) => unusable(&self.data, &error),
            other => {
                let tried: Vec<&str> = token.seeds().iter().map(Address::as_str).collect();
                StartError::Join { tried: tried.join(", "), last: other.to_string() }
            }
        })?;
        self.timeout = self.timeout.saturating_sub(began.elapsed()).max(Duration::from_secs(1));
        let (role, timeout) = (token.role(), self.timeout);
        reachable("a seed", token.seeds())?;
        let (node, listening) = self.with_keys(Keys::Kept).await?.open().await?;
        let entered = match node.join(token.seeds(), role, timeout).await {
            // It has joined before, and needed another certificate.
            Err(StartError::Occupied { .. }) => node.resume_with(token.seeds(), timeout).await,
            entered => entered,
        };
        finish(node, listening, entered).await
    }

    /// Starts a member again after a stop, as a new life. The data folder must belong to a cluster.
    ///
    /// # Errors
    /// [`StartError::Vacant`] when it does not; the folder is not created. [`StartError::Propose`] when the new life
    /// was refused. [`StartError::Resume`] when no majority was reached in time, with each address that was asked. In
    /// that case it may still take effect, and resuming again is safe.
    pub async fn resume(self) -> Result<Cluster, StartError> {
        self.resume_with(std::iter::empty::<String>()).await
    }

    /// As [`Self::resume`], and looks for other members at `seeds` too. It is for a cluster whose members have all moved
    /// to other addresses while no majority was up: give each of them the present addresses of the others.
    ///
    /// # Errors
    /// As [`Self::resume`], and [`StartError::Config`] for a seed that is not an address.
    pub async fn resume_with(self, seeds: impl IntoIterator<Item = impl Into<String>>) -> Result<Cluster, StartError> {
        let seeds = addresses("a seed", seeds.into_iter().map(Into::into))?;
        if matches!(self.wire, Wire::Socket(..)) {
            reachable("a seed", &seeds)?;
        }
        let timeout = self.timeout;
        if !self.data.join("node").exists() {
            return Err(StartError::Vacant(self.data)); // a mistyped path must not create a folder
        }
        let (node, listening) = self.with_keys(Keys::Kept).await?.open().await?;
        let entered = node.resume_with(&seeds, timeout).await;
        finish(node, listening, entered).await
    }
}

/// Returns the running node, or stops it if it did not enter the cluster.
async fn finish(
    node: Node,
    listening: Listening,
    entered: Result<Identity, StartError>,
) -> Result<Cluster, StartError> {
    match entered {
        Ok(identity) => Ok(Cluster { node: Arc::new(node), identity, listening }),
        Err(error) => {
            node.shutdown().await;
            listening.shut_down().await;
            Err(error)
        }
    }
}

/// Where the keys of a node come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// Its cluster is founded: they are made, unless they are there.
    Found,
    /// They are in the data folder.
    Kept,
}

impl Ready {
    /// With the keys that [`listen`](super::WantsWire::listen) needs. Other nodes are not asked.
    async fn with_keys(mut self, keys: Keys) -> Result<Self, StartError> {
        let Wire::Socket(address, Security::Own(None)) = self.wire else { return Ok(self) };
        let (data, node) = (self.data.clone(), self.node);
        let reading = tokio::task::spawn_blocking(move || match keys {
            Keys::Found => Tls::found(&data, node),
            Keys::Kept => Tls::open(&data, node),
        });
        let read = reading.await.map_err(|error| unusable(&self.data, &error))?;
        let tls = read.map_err(|error: CredentialsError| unusable(&self.data, &error))?;
        self.wire = Wire::Socket(address, Security::Own(Some(tls)));
        Ok(self)
    }
}

/// The keys in this data folder cannot be used.
fn unusable(data: &Path, why: &dyn std::fmt::Display) -> StartError {
    let remedy = "a founder makes them by `bootstrap`, and every other node gets them with a token, by `join_with`";
    invalid("the folder of the keys", &data.join("tls").display().to_string(), &format!("{why}; {remedy}"))
}
