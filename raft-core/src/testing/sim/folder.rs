//! The data folder of a simulated machine: one record in its memory, which outlives its processes.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::host::SimHost;
use crate::error::StartError;
use crate::folder::{Folder, FolderStorage};
use crate::host::Host;

#[derive(Debug)]
struct SimFolder(Arc<SimHost>);

/// Opens the folder of a simulated machine.
///
/// # Errors
/// As [`Folder::open`].
pub(super) fn open(host: &Arc<SimHost>) -> Result<Folder, StartError> {
    let path = PathBuf::from(format!("simulated/{}", host.node()));
    Folder::open_on(Box::new(SimFolder(host.clone())), &path, host.node())
}

impl FolderStorage for SimFolder {
    fn load(&self) -> Result<Option<Vec<u8>>, StartError> {
        Ok(self.0.sim_disk().folder())
    }

    /// Within one boot the former process is gone: one process runs on a machine at a time.
    fn take_over(&self) -> io::Result<bool> {
        let boot = self.0.boot_id();
        Ok(self.0.sim_disk().opener(boot) == Some(boot))
    }

    fn save(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.sim_disk().set_folder(bytes.to_vec());
        Ok(())
    }
}
