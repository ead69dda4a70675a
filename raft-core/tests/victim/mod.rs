//! Processes that are to die: the test binary started once more, to play one part and nothing else.
//!
//! ```text
//!   #[test] the_claim ── Victim::start("spinning") ──▶ this binary, `--ignored --exact victim`, part in its environment
//!        │                                                 └── says "at 1234567890" (ns of CLOCK_BOOTTIME) and lives on
//!        └── ended(): by which signal, and when on CLOCK_BOOTTIME
//! ```

#![expect(dead_code, reason = "no file of tests uses all of it")]
#![expect(clippy::expect_used, clippy::panic, reason = "what a test starts fails as a test does")]

use quorate_membership::lease::Reading;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

const PART: &str = "QUORATE_TEST_VICTIM";

/// What CLOCK_BOOTTIME shows.
pub(crate) fn boottime() -> Duration {
    let shown = clock_gettime(ClockId::Boottime);
    Duration::new(shown.tv_sec as u64, shown.tv_nsec as u32)
}

/// What a keeper sees that looks at its lease now.
pub(crate) fn look() -> Reading {
    Reading::steady(boottime())
}

/// The part that this process is to play, if it was started as a victim.
pub(crate) fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// Tells the test something, in one line.
pub(crate) fn say(word: &str, number: u128) {
    // Past the test harness, which would keep it until the end.
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word} {number}").and_then(|()| out.flush()).expect("the test listens");
}

/// Tells the test an instant.
pub(crate) fn say_at(word: &str, at: Duration) {
    say(word, at.as_nanos());
}

/// A process that is to die. Dropping it ends it.
pub(crate) struct Victim {
    child: Child,
    lines: BufReader<ChildStdout>,
}

/// How a victim ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) signal: Option<i32>,
    pub(crate) code: Option<i32>,
    /// What CLOCK_BOOTTIME showed as soon as it was known.
    pub(crate) at: Duration,
}

impl Victim {
    /// Plays `part`.
    pub(crate) fn start(part: &str) -> Self {
        Self::launch(Command::new(std::env::current_exe().expect("a test has a file")), part)
    }

    /// The same through another program, whose last argument is the program to run.
    pub(crate) fn launch(mut command: Command, part: &str) -> Self {
        let name = if part == "node" { "victim_node" } else { "victim" };
        command.args(["--ignored", "--exact", name, "--nocapture", "--test-threads=1"]).env(PART, part);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the victim starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, lines }
    }

    /// The next thing that it says, `None` when it says nothing more.
    pub(crate) fn hear(&mut self) -> Option<(String, u128)> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).expect("its output is text") == 0 {
                return None;
            }
            if let Some((word, number)) = line.trim().rsplit_once(' ')
                && let Ok(number) = number.parse()
            {
                // The harness may have written the name of the test in front.
                return Some((word.rsplit(' ').next().unwrap_or(word).to_string(), number));
            }
        }
    }

    /// The number that it says under `word`; what it says before that is passed over.
    pub(crate) fn expect(&mut self, word: &str) -> u128 {
        loop {
            match self.hear() {
                Some((said, number)) if said == word => return number,
                Some(_) => {}
                None => panic!("it ended without saying {word:?}: {:?}", self.child.wait()),
            }
        }
    }

    /// The same for an instant.
    pub(crate) fn expect_at(&mut self, word: &str) -> Duration {
        Duration::from_nanos(self.expect(word) as u64)
    }

    /// Everything that it writes until it says `word`.
    pub(crate) fn text_until(&mut self, word: &str) -> String {
        let mut text = String::new();
        while self.lines.read_line(&mut text).expect("its output is text") != 0 {
            if text.lines().last().is_some_and(|line| line.starts_with(word)) {
                break;
            }
        }
        text
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended.
    pub(crate) fn ended(&mut self) -> Ended {
        let status = self.child.wait().expect("it is a child of this test");
        Ended { signal: status.signal(), code: status.code(), at: boottime() }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _was_reaped = self.child.wait();
    }
}
