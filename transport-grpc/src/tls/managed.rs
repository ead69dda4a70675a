//! The authority of a cluster that has one of its own: its certificate on every node, its key on voters only.
//!
//! Nothing is asked of other nodes here; what nodes ask of each other about it is in `enrollment/`.

use std::fmt;
use std::time::Duration;

use parking_lot::RwLock;
use quorate_membership::NodeId;
use rustls::pki_types::UnixTime;

use super::authority::Authority;
use super::credentials::{Credentials, CredentialsError};
use super::key_folder::{KeyFolder, NODE_VALID};
use super::subject::CallerRole;

/// What one node has of the authority of its cluster.
pub(crate) struct Managed {
    folder: KeyFolder,
    cluster: String,
    /// The SHA-256 of the certificate of the authority.
    hash: [u8; 32],
    /// With its key, if this node keeps it.
    authority: RwLock<Option<Authority>>,
}

impl fmt::Debug for Managed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Managed").field("cluster", &self.cluster).field("keeps", &self.keeps()).finish_non_exhaustive()
    }
}

impl Managed {
    pub(super) fn open(folder: KeyFolder) -> Result<Self, CredentialsError> {
        let credentials = folder.credentials()?;
        let cluster = credentials.subject().cluster.clone();
        let none = || CredentialsError::Unfit("it trusts nobody".into());
        let hash = credentials.authority_hash().ok_or_else(none)?;
        let authority = RwLock::new(folder.authority(&cluster)?);
        Ok(Self { folder, cluster, hash, authority })
    }

    /// The label of the cluster.
    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The SHA-256 of the certificate of the authority.
    pub(crate) fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Whether this node keeps the key of the authority.
    pub(crate) fn keeps(&self) -> bool {
        self.authority.read().is_some()
    }

    /// The certificate and the key of the authority, if this node keeps it: for another voter.
    pub(crate) fn share(&self) -> Option<(String, String)> {
        self.authority.read().as_ref().map(|authority| (authority.certificate().to_owned(), authority.key()))
    }

    /// Keeps the key of the authority, once it is known to be that of the one which this node trusts.
    pub(crate) fn keep(&self, certificate: &str, key: &str) -> Result<(), CredentialsError> {
        let authority = Authority::from_pem(&self.cluster, certificate, key)?;
        if Authority::hash_of(certificate)? != self.hash {
            return Err(CredentialsError::Unfit("it is another authority than the one that this node trusts".into()));
        }
        self.folder.keep_authority(&authority)?;
        *self.authority.write() = Some(authority);
        Ok(())
    }

    /// Deletes the key of the authority.
    pub(crate) fn forget(&self) -> Result<(), CredentialsError> {
        self.folder.forget_authority()?;
        *self.authority.write() = None;
        Ok(())
    }

    /// A certificate of `node` for the key that this request is signed with, and that of the authority; `None` if this node does
    /// not keep the authority.
    pub(crate) fn certify(
        &self,
        node: NodeId,
        request: &[u8],
        valid: Duration,
    ) -> Option<Result<(String, String), CredentialsError>> {
        let authority = self.authority.read();
        let authority = authority.as_ref()?;
        let made = authority.sign(CallerRole::Node(node), request, valid);
        Some(made.map(|certificate| (certificate, authority.certificate().to_owned())))
    }

    /// A request for the next certificate of this node, with the key that it has.
    pub(crate) fn request(&self) -> Result<Vec<u8>, CredentialsError> {
        self.folder.request(&self.cluster)
    }

    /// The next certificate of this node by its own copy of the authority, kept and ready to be used; `None` without that.
    pub(crate) fn renew_by_itself(&self, own: NodeId) -> Option<Result<Credentials, CredentialsError>> {
        let made = match self.request() {
            Ok(request) => self.certify(own, &request, NODE_VALID)?,
            Err(error) => Err(error),
        };
        Some(made.and_then(|(certificate, authority)| self.keep_renewed(&certificate, &authority)))
    }

    /// Keeps the next certificate of this node, if the authority that it trusts has signed it.
    pub(crate) fn keep_renewed(&self, certificate: &str, authority: &str) -> Result<Credentials, CredentialsError> {
        self.folder.take(certificate, authority, self.hash)
    }

    /// The credentials in the folder. A node that keeps the authority gets a new certificate first if its own has expired, such as
    /// after a long time switched off.
    pub(super) fn usable(&self) -> Result<Credentials, CredentialsError> {
        let kept = self.folder.credentials()?;
        self.folder.is_own(&kept)?;
        let now = UnixTime::now();
        // One that is not valid yet was made while the clock was ahead.
        let out_of_time = super::credentials::valid(&kept.chain).is_ok_and(|(from, until)| now < from || until <= now);
        if out_of_time { self.renew_by_itself(self.folder.node()).unwrap_or(Ok(kept)) } else { Ok(kept) }
    }

    /// As [`Authority::issue`]; `None` if this node does not keep the authority.
    pub(crate) fn with_authority<T>(&self, use_it: impl FnOnce(&Authority) -> T) -> Option<T> {
        self.authority.read().as_ref().map(use_it)
    }
}
