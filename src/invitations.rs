//! What a cluster with an authority of its own does for others: tokens for nodes, certificates for operators and clients.
//!
//! ```text
//!   n1: bootstrap ──▶ authority ──▶ invite ──▶ token ── carried by an operator ──▶ n2: join_with(token)
//! ```
//!
//! ```no_run
//! use quorate::tls::Invite;
//! use quorate::{Cluster, NodeId};
//!
//! # async fn program() -> Result<(), Box<dyn std::error::Error>> {
//! // On the first machine:
//! let node = Cluster::builder(NodeId::new(1)).data("/var/lib/quorate").listen("10.0.0.1:7400".parse()?);
//! let cluster = node.without_fencing().bootstrap().await?;
//! println!("{}", cluster.invite(Invite::voter()).await?);
//!
//! // On the second one, with the text that was printed:
//! let token: quorate::tls::JoinToken = std::env::var("TOKEN")?.parse()?;
//! let node = Cluster::builder(token.node()).data("/var/lib/quorate").listen("10.0.0.2:7400".parse()?);
//! let cluster = node.without_fencing().join_with(&token).await?;
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

use quorate_transport_grpc::enrollment::{Invite, InviteError, invite};
use quorate_transport_grpc::tls::{CallerRole, CredentialsError, Issued, JoinToken, Tls};

use crate::cluster::Cluster;

impl Cluster {
    /// Invites a node, where the nodes listen with [`listen`](crate::builder::WantsWire::listen): returns the token with which one
    /// machine gets the certificate of that node, once, and joins with [`join_with`](crate::builder::Ready::join_with). Whoever has
    /// the token first can do that, so pass it on as you would a password. The log has the invitation and its use, as the record
    /// `quorate/invitations/n4`, and who asked for it as the label of the record's session. An earlier invitation of the same node ends.
    ///
    /// # Errors
    /// [`InviteError`]. Nothing was changed, but for a session that ends by itself.
    pub async fn invite(&self, whom: Invite) -> Result<JoinToken, InviteError> {
        let tls = self.listening.tls().ok_or(InviteError::NotManaged)?;
        invite(&*self.node.service(), tls, whom, None).await
    }

    /// Makes a certificate for an operator or a client, by the authority of the cluster. Its holder trusts the file
    /// `tls/authority.pem` in the data folder. Only a voter can do this.
    ///
    /// # Errors
    /// [`CredentialsError::NoAuthority`] if this node does not keep the authority: it is no voter, has become one a moment ago, or
    /// the cluster has none. [`CredentialsError::Issue`] for a name that cannot be in a certificate, and for nodes.
    pub fn issue_certificate(&self, role: CallerRole, valid: Duration) -> Result<Issued, CredentialsError> {
        self.listening.tls().ok_or(CredentialsError::NoAuthority)?.issue(role, valid)
    }

    /// How long the certificate of this node is valid still, by the wall clock; `None` without TLS. Zero if it has expired.
    pub fn certificate_valid_for(&self) -> Option<Duration> {
        self.listening.tls().map(Tls::valid_for)
    }

    /// Whether this node keeps the key of the cluster's own authority. Every voter does, a moment after it has become one.
    pub fn keeps_authority(&self) -> bool {
        self.listening.tls().is_some_and(Tls::keeps_authority)
    }
}
