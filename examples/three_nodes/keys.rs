//! The keys of the demo: an authority of its own for each run, and a certificate for each node.
//!
//! ```text
//!   folder/keys   authority.pem     everybody trusts it; its key is in the director's memory only
//!                 n1.pem n1.key     what n1 shows, and what proves that it may
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use quorate::NodeId;
use quorate::tls::{Authority, CallerRole, Credentials};

/// Longer than any run.
const VALID: Duration = Duration::from_secs(24 * 3600);

/// The authority of a run.
pub(crate) struct Keys {
    authority: Authority,
    folder: PathBuf,
}

impl Keys {
    /// A new authority, whose certificate is written below `folder`.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let folder = folder.join("keys");
        std::fs::create_dir(&folder)?;
        let authority = Authority::new("demo")?;
        std::fs::write(folder.join("authority.pem"), authority.certificate())?;
        Ok(Self { authority, folder })
    }

    /// Makes the certificate of a node, and writes it with its key.
    pub(crate) fn issue(&self, node: NodeId) -> Result<()> {
        let issued = self.authority.issue(CallerRole::Node(node), &[], VALID)?;
        Ok(issued.write(self.folder.join(format!("{node}.pem")), self.folder.join(format!("{node}.key")))?)
    }
}

/// What a node shows and trusts, as the director has written it below `folder`.
pub(crate) fn of(node: NodeId, folder: &Path) -> Result<Credentials> {
    let folder = folder.join("keys");
    let (certificate, key) = (folder.join(format!("{node}.pem")), folder.join(format!("{node}.key")));
    Credentials::read(folder.join("authority.pem"), certificate, key).context("the keys of this node")
}
