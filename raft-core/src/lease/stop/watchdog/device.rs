//! One watchdog device, by its ioctls: checked, started, fed, stopped.
//!
//! ```text
//!   open: it runs ─▶ can it be stopped? ─▶ timeout set ─▶ and read back ─▶ fed …  ─▶ stopped ─▶ "V", close
//! ```
//!
//! A device without magic close is refused. It stops whenever it is closed, and so when this process dies, which is the
//! very case that it is there for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};
use rustix::io::Errno;

use crate::lease::stop::kernel::{WatchdogRequest, watchdog_ask, watchdog_options};

/// WDIOF_SETTIMEOUT, WDIOF_MAGICCLOSE, WDIOF_ALARMONLY; WDIOS_DISABLECARD, WDIOS_ENABLECARD.
const CAN_SET_TIMEOUT: u32 = 0x0080;
const MAGIC_CLOSE: u32 = 0x0100;
const ALARM_ONLY: u32 = 0x0400;
const OFF: i32 = 1;
const ON: i32 = 2;

pub(super) const NOWAYOUT: &str = "this watchdog cannot be stopped once it runs (nowayout), so a mere crash of this process \
                                   resets the machine";

fn refused(why: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::Unsupported, why.into())
}

/// Whether the device can be used, as far as that shows without opening it.
pub(super) fn look(path: &Path, accept_nowayout: bool) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let about = fs::metadata(path).map_err(named)?;
    if !about.file_type().is_char_device() {
        return Err(refused(format!("{} is no character device", path.display())));
    }
    let Some(folder) = folder_in_sys(about.rdev()) else { return Ok(()) };
    let says = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default().trim().to_string();
    if says("nowayout") == "1" && !accept_nowayout {
        return Err(refused(format!("{}: {NOWAYOUT}; {ALLOW}", path.display())));
    }
    if says("state") == "active" {
        return Err(io::Error::new(
            ErrorKind::ResourceBusy,
            format!(
                "{} runs already: something else feeds it (systemd's RuntimeWatchdogSec, watchdogd)",
                path.display()
            ),
        ));
    }
    Ok(())
}

const ALLOW: &str = "allow that with accept_nowayout, or load its driver with nowayout=0";

/// The folder in which the kernel describes it, if it does.
fn folder_in_sys(device: u64) -> Option<PathBuf> {
    let folder = match (major(device), minor(device)) {
        // The old name of the first one.
        (10, 130) => "/sys/class/watchdog/watchdog0".into(),
        (major, minor) => format!("/sys/dev/char/{major}:{minor}"),
    };
    Some(PathBuf::from(folder)).filter(|folder| folder.join("nowayout").exists())
}

/// A device that is open, and so runs.
#[derive(Debug)]
pub(super) struct Device {
    file: File,
    path: PathBuf,
    seconds: Option<i32>,
    nowayout: bool,
}

impl Device {
    /// Opens the device, which starts it, with whatever timeout it has.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let opened = OpenOptions::new().write(true).open(path);
        let file =
            opened.map_err(|error| io::Error::new(error.kind(), format!("opening {}: {error}", path.display())))?;
        Ok(Self { file, path: path.into(), seconds: None, nowayout: false })
    }

    /// The timeout in seconds that the device has confirmed.
    pub(super) fn terms(&self) -> Option<i32> {
        self.seconds
    }

    pub(super) fn cannot_be_stopped(&self) -> bool {
        self.nowayout
    }

    pub(super) fn may_be_used(&self, accept_nowayout: bool) -> bool {
        accept_nowayout || !self.nowayout
    }

    fn ask(&self, ask: WatchdogRequest, number: i32) -> io::Result<i32> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {ask:?}: {error}", self.path.display()));
        watchdog_ask(self.file.as_fd(), ask, number).map_err(named)
    }

    /// Finds out what the device can do, sets its timeout, and reads the timeout back.
    ///
    /// # Errors
    /// When it cannot be relied on. It still runs, and has to be stopped.
    pub(super) fn prepare(&mut self, seconds: i32, accept_nowayout: bool) -> io::Result<()> {
        self.seconds = None;
        let path = self.path.display();
        let can = watchdog_options(self.file.as_fd())?;
        if can & ALARM_ONLY != 0 {
            return Err(refused(format!("{path} raises an alarm and resets nothing")));
        }
        self.nowayout = self.is_nowayout()?;
        if self.nowayout && !accept_nowayout {
            return Err(refused(format!("{path}: {NOWAYOUT}; {ALLOW}")));
        }
        if can & MAGIC_CLOSE == 0 && !self.nowayout {
            return Err(refused(format!(
                "{path} has no magic close: it stops when this process dies, and resets nothing"
            )));
        }
        if can & CAN_SET_TIMEOUT != 0 {
            self.ask(WatchdogRequest::SetTimeout, seconds)?;
        }
        match self.ask(WatchdogRequest::Timeout, 0)? {
            got if got == seconds => self.seconds = Some(got),
            got => {
                let why = format!("{path} waits {got} s where {seconds} s are promised; promise what it can do");
                return Err(refused(why));
            }
        }
        Ok(())
    }

    /// Finds out by stopping it: in a container without /sys there is no other way.
    fn is_nowayout(&self) -> io::Result<bool> {
        match watchdog_ask(self.file.as_fd(), WatchdogRequest::SetOptions, OFF) {
            Ok(_) => self.ask(WatchdogRequest::SetOptions, ON).map(|_| false),
            Err(error) if errno(&error) == Some(Errno::BUSY) => Ok(true),
            // A driver outside of the kernel's watchdog core has its magic close only.
            Err(error) if matches!(errno(&error), Some(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Feeds it: it waits its whole timeout again.
    pub(super) fn keep_alive(&self) -> io::Result<()> {
        self.ask(WatchdogRequest::KeepAlive, 0).map(|_| ())
    }

    /// Stops the device and closes it.
    ///
    /// # Errors
    /// With the device, which runs on.
    pub(super) fn stop(mut self) -> Result<(), (Self, io::Error)> {
        match watchdog_ask(self.file.as_fd(), WatchdogRequest::SetOptions, OFF) {
            Err(error) if errno(&error) == Some(Errno::BUSY) => {
                self.nowayout = true;
                return Err((self, refused(NOWAYOUT)));
            }
            // Stopped, or only its magic close stops it.
            Ok(_) | Err(_) => {}
        }
        match self.file.write_all(b"V") {
            Ok(()) => Ok(()),
            Err(error) => Err((self, error)),
        }
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}
