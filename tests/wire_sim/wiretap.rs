//! What the connections say of themselves, counted: a fault that no connection felt has proved nothing.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_subscriber::EnvFilter;

use crate::coverage::Tally;

/// What is listened for, and what it means.
const SIGNS: [(&str, &str); 4] = [
    ("connected", "connection made"),
    ("no connection", "connection refused or not in time"),
    ("connection closed", "connection broken"),
    ("keep-alive timed out", "connection found dead by its ping"),
];

/// Whom to listen to.
const OURS: &str = "quorate_transport_grpc=debug";

/// How often each sign was heard.
#[derive(Clone, Default)]
pub(crate) struct Heard {
    times: Arc<[AtomicU64; 4]>,
    aloud: bool,
}

/// Listens, from now on. `aloud`: prints it, too, and what RUST_LOG asks for; its times are of the machine that plays.
pub(crate) fn install(aloud: bool) -> Heard {
    let heard = Heard { aloud, ..Heard::default() };
    let writer = heard.clone();
    let asked = std::env::var("RUST_LOG").ok().filter(|asked| aloud && !asked.is_empty());
    let filter = EnvFilter::new(asked.map_or(OURS.into(), |asked| format!("{asked},{OURS}")));
    tracing_subscriber::fmt().with_ansi(false).with_env_filter(filter).with_writer(move || writer.clone()).init();
    heard
}

impl Heard {
    pub(crate) fn count(&self, tally: &mut Tally) {
        for (times, (_, what)) in self.times.iter().zip(SIGNS) {
            tally.add(what, times.load(Ordering::Relaxed));
        }
    }
}

impl Write for Heard {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        for (times, (sign, _)) in self.times.iter().zip(SIGNS) {
            times.fetch_add(u64::from(text.contains(sign)), Ordering::Relaxed);
        }
        if self.aloud {
            io::stderr().write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
