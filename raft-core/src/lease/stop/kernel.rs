//! What only the kernel can do for a stop mechanism: the one file of this crate with `unsafe` in it.
//!
//! ```text
//!   Timer                timer_create(CLOCK_BOOTTIME, SIGKILL)                            deadman.rs
//!   die_with_parent      PR_SET_PDEATHSIG between fork and exec                           child/start.rs
//!   fork_guardian        fork: a process that waits for its parent's death and nothing    child/start.rs
//! ```
//!
//! Every function here is a thin, safe wrapper of one or a few system calls. Its users explain its purpose.

#![expect(unsafe_code, reason = "timers, fork and ioctls have no safe binding; each block says why it is sound")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::null_mut;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

fn check(outcome: libc::c_int) -> io::Result<()> {
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A timer on CLOCK_BOOTTIME at whose end the kernel sends SIGKILL to this process. Dropping it deletes it.
#[derive(Debug)]
pub(super) struct Timer(libc::timer_t);

// SAFETY: the handle names a timer of the process and is never dereferenced here; any thread may use it.
unsafe impl Send for Timer {}

impl Timer {
    /// A new one, disarmed.
    pub(super) fn new() -> io::Result<Self> {
        let mut id = MaybeUninit::<libc::timer_t>::uninit();
        // SAFETY: all zeros is a valid `sigevent`; both pointers are to live values of the types that the call expects.
        let made = unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_SIGNAL;
            event.sigev_signo = libc::SIGKILL;
            libc::timer_create(libc::CLOCK_BOOTTIME, &raw mut event, id.as_mut_ptr())
        };
        check(made)?;
        // SAFETY: a successful call has written it.
        Ok(Self(unsafe { id.assume_init() }))
    }

    /// Lets it fire when CLOCK_BOOTTIME shows `at`, at once if it does already; `None` disarms it.
    pub(super) fn set(&self, at: Option<Duration>) -> io::Result<()> {
        // All zeros would disarm it.
        let at = at.map_or(Duration::ZERO, |at| at.max(Duration::from_nanos(1)));
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let too_far = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let tv_sec = libc::time_t::try_from(at.as_secs()).map_err(too_far)?;
        let spec = libc::itimerspec {
            it_interval: never,
            it_value: libc::timespec { tv_sec, tv_nsec: libc::c_long::from(at.subsec_nanos().cast_signed()) },
        };
        // SAFETY: the timer exists until this is dropped; `spec` lives across the call; the last argument may be null.
        check(unsafe { libc::timer_settime(self.0, libc::TIMER_ABSTIME, &raw const spec, null_mut()) })
    }

    /// What is left until it fires; `None` when it is disarmed, or has fired.
    pub(super) fn left(&self) -> io::Result<Option<Duration>> {
        let mut spec = MaybeUninit::<libc::itimerspec>::uninit();
        // SAFETY: the timer exists until this is dropped; the pointer is to memory of the size that the call writes.
        check(unsafe { libc::timer_gettime(self.0, spec.as_mut_ptr()) })?;
        // SAFETY: a successful call has written it.
        let value = unsafe { spec.assume_init() }.it_value;
        let left = Duration::new(value.tv_sec.cast_unsigned(), value.tv_nsec.cast_unsigned() as u32);
        Ok((!left.is_zero()).then_some(left))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: the timer was created by this and is deleted once. It cannot fail for a timer that exists.
        let _cannot_fail = unsafe { libc::timer_delete(self.0) };
    }
}

/// The requests to a watchdog device that carry one number (`linux/watchdog.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WatchdogRequest {
    /// 1 stops it, 2 starts it.
    SetOptions,
    /// It waits its whole timeout again.
    KeepAlive,
    /// Seconds. The device may take another number.
    SetTimeout,
    /// Seconds.
    Timeout,
}

/// Makes a request, and returns the number that the device left.
pub(super) fn watchdog_ask(device: BorrowedFd<'_>, ask: WatchdogRequest, number: i32) -> io::Result<i32> {
    const GROUP: u32 = b'W' as u32;
    let request = match ask {
        WatchdogRequest::SetOptions => libc::_IOR::<libc::c_int>(GROUP, 4),
        WatchdogRequest::KeepAlive => libc::_IOR::<libc::c_int>(GROUP, 5),
        WatchdogRequest::SetTimeout => libc::_IOWR::<libc::c_int>(GROUP, 6),
        WatchdogRequest::Timeout => libc::_IOR::<libc::c_int>(GROUP, 7),
    };
    let mut number: libc::c_int = number;
    // SAFETY: each of these requests reads or writes at most the one `int` that it is given.
    check(unsafe { libc::ioctl(device.as_raw_fd(), request, &raw mut number) })?;
    Ok(number)
}

/// `struct watchdog_info`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

/// What a watchdog device says that it can do: the `WDIOF_…` bits.
pub(super) fn watchdog_options(device: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = Info { options: 0, firmware_version: 0, identity: [0; 32] };
    let request = libc::_IOR::<Info>(u32::from(b'W'), 0);
    // SAFETY: the request writes one `watchdog_info`, which is what `Info` is laid out as.
    check(unsafe { libc::ioctl(device.as_raw_fd(), request, &raw mut info) })?;
    Ok(info.options)
}

/// Has the kernel kill what `command` starts when the *thread* that starts it ends, and with it when this process does.
pub(super) fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    let bind = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // A parent that died before that call sends nothing any more.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    };
    // SAFETY: it runs between fork and exec and makes system calls alone: nothing is allocated, no lock is taken.
    unsafe { command.pre_exec(bind) };
}

/// Forks a process that leads a process group of its own, does nothing, and kills that group when the *thread* that
/// called this ends, and so when this process ends in any way. It reports on `ready` that it is prepared: one `i32`, 0 or
/// the number of an error.
///
/// It shares the memory of this process as of now: a page that is written to later is kept twice while it lives.
pub(super) fn fork_guardian(ready: BorrowedFd<'_>) -> io::Result<Pid> {
    let (parent, ready) = (getpid(), ready.as_raw_fd());
    // SAFETY: both sets are on this stack and filled by the calls before they are used. Every signal is blocked across
    // the fork, so that no handler of this process ever runs in the child. The child calls nothing but `guard`, which
    // keeps to system calls and never returns: it takes no lock that another thread might have held at the fork.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed::<libc::sigset_t>(), std::mem::zeroed::<libc::sigset_t>());
        libc::sigfillset(&raw mut all);
        match libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        let death = libc::SIGRTMAX();
        let pid = libc::fork();
        if pid == 0 {
            guard(parent, ready, death);
        }
        let failed = io::Error::last_os_error();
        let _cannot_fail = libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, null_mut());
        Pid::from_raw(pid.max(0)).ok_or(failed)
    }
}

/// How often the guardian looks for its parent in case the signal does not come: a process that has changed its user may
/// not signal those that it started before.
static LOOK: libc::timespec = libc::timespec { tv_sec: 1, tv_nsec: 0 };

/// What the guardian does, with every signal blocked.
///
/// # Safety
/// To be called in a process that was just forked: it closes every descriptor and never returns.
unsafe fn guard(parent: Pid, ready: i32, death: i32) -> ! {
    // SAFETY: system calls alone. Descriptors are closed by number, and nothing here uses one afterwards; the signal set
    // and the signal's description are on this stack; `_exit` runs nothing of the former process.
    unsafe {
        let close = |from: libc::c_uint, to: libc::c_uint| libc::syscall(libc::SYS_close_range, from, to, 0);
        let below = ready.cast_unsigned();
        let prepared = libc::setpgid(0, 0) == 0
            && libc::prctl(libc::PR_SET_PDEATHSIG, death) == 0
            && libc::prctl(libc::PR_SET_NAME, c"quorate-guard".as_ptr()) == 0
            && libc::chdir(c"/".as_ptr()) == 0
            && (below == 0 || close(0, below - 1) == 0)
            && close(below + 1, libc::c_uint::MAX) == 0;
        let word = if prepared { 0_i32 } else { *libc::__errno_location() };
        if libc::write(ready, (&raw const word).cast(), size_of::<i32>()) < 0 || !prepared {
            libc::_exit(1);
        }
        libc::close(ready);
        let mut awaited = std::mem::zeroed::<libc::sigset_t>();
        libc::sigaddset(&raw mut awaited, death);
        while getppid() == Some(parent) {
            let mut from = std::mem::zeroed::<libc::siginfo_t>();
            let got = libc::sigtimedwait(&raw const awaited, &raw mut from, &raw const LOOK);
            // The thread is dead, and its process may still be listed as the parent. Signals of others do not count.
            if got == death && from.si_pid() == parent.as_raw_pid() {
                break;
            }
        }
        libc::kill(0, libc::SIGKILL);
        libc::_exit(0)
    }
}
