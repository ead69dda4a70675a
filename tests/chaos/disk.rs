//! A disk of its own for each host: a small tmpfs that can be full, and for the last host the machine's real disk.
//!
//! ```text
//!   run/h1/        tmpfs, 64 MiB          data/   the node's folder
//!   run/h2/        tmpfs, 64 MiB          filler  takes what is left, and gives it back
//!   run/h3/        the machine's disk     whose fsync is a real one
//! ```

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::net::run;

/// How large the small ones are. The whole log of a run fits in several times over.
const SIZE: &str = "size=64m,mode=700";

/// The folder of one host. Dropping it unmounts what was mounted.
#[derive(Debug)]
pub(crate) struct Disk {
    place: PathBuf,
    small: bool,
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.small
            && let Err(error) = run("umount", &[&self.place.to_string_lossy()])
        {
            eprintln!("{} was not unmounted: {error:#}", self.place.display());
        }
    }
}

impl Disk {
    /// A disk at `place`, which is made.
    pub(crate) fn new(place: &Path, small: bool) -> Result<Self> {
        std::fs::create_dir_all(place).with_context(|| place.display().to_string())?;
        if small {
            let source = format!("quorate-chaos-{}", std::process::id());
            run("mount", &["-t", "tmpfs", "-o", SIZE, &source, &place.to_string_lossy()])?;
        }
        Ok(Self { place: place.into(), small })
    }

    /// The node's folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.place.join("data")
    }

    fn filler(&self) -> PathBuf {
        self.place.join("filler")
    }

    /// Takes all the room that is left. `true` if there is none then; only a small disk is filled.
    pub(crate) fn fill(&self) -> Result<bool> {
        if !self.small {
            return Ok(false);
        }
        let mut file = File::options().append(true).create(true).open(self.filler())?;
        for size in [1 << 16, 1 << 12, 1] {
            let piece = vec![0; size];
            loop {
                match file.write_all(&piece) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("filling a disk"),
                }
            }
        }
        Ok(true)
    }

    /// Gives the room back.
    pub(crate) fn free(&self) -> Result<()> {
        match std::fs::remove_file(self.filler()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("freeing a disk"),
            _ => Ok(()),
        }
    }
}
