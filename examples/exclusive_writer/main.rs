//! One writer at a time, even if an old writer wakes up late: a lock with a token, and a resource that checks the
//! token.
//!
//! ```text
//!   director (this process) ─┬─ n1: lock("writer") ══▶ token r12 ──write──▶ ┐
//!     storage behind a       ├─ n2: waits for the lock                      ├──▶ TokenGate ──▶ file
//!     TokenGate              └─ n3: waits for the lock                      ┘
//!
//!   n1 checks its guard: may write ─▶ SIGSTOP ─▶ its lease runs out ─▶ its end is proved ─▶ n2 gets the lock, token r40
//!   n1 is continued, and makes the write that it was about to make ─▶ refused: r12 was superseded by r40
//! ```
//!
//! `cargo run --release --example exclusive_writer` runs this with real processes. Nothing stops the paused writer: it
//! has no dead-man and no fencing device. No check in the writer covers this case, because a pause may fall between the
//! check and the write. That is why the writer passes its token to the resource. The exit code is 0 if the late write
//! was refused and the file is in the order of tokens, 1 if not, and 2 if the run did not finish.

mod node;
mod storage;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::storage::Storage;

/// How long an expected step may take before the run fails.
const TIMEOUT: Duration = Duration::from_secs(120);

/// How many written lines show that an owner is working.
const AT_WORK: usize = 20;

fn main() -> Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("node") => node::main(args).map(|()| ExitCode::SUCCESS),
        Some(other) => bail!("`{other}` is not an option; this example takes none"),
        None => Ok(match direct() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("the run did not finish: {error:#}");
                ExitCode::from(2)
            }
        }),
    }
}

/// A node's process, which is killed when this value is dropped.
struct Node {
    number: u64,
    child: Child,
    orders: ChildStdin,
    lines: Receiver<String>,
}

impl Drop for Node {
    fn drop(&mut self) {
        // Killing a process that has ended fails; waiting for it still reaps it.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Node {
    fn start(number: u64, folder: &std::path::Path, storage: &Storage, way: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("node").arg(number.to_string()).arg(folder.join(format!("n{number}")));
        command.arg(storage.address().to_string()).arg(way).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting a node")?;
        let (orders, said) = (child.stdin.take().context("its stdin")?, child.stdout.take().context("its stdout")?);
        let (heard, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                if heard.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { number, child, orders, lines })
    }

    /// Waits for a line that begins with `word`, and returns the rest of it.
    fn hear(&self, word: &str) -> Result<String> {
        let give_up = Instant::now() + TIMEOUT;
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            let line =
                self.lines.recv_timeout(left).with_context(|| format!("n{} never said `{word}`", self.number))?;
            println!("    n{} says: {line}", self.number);
            if let Some(rest) = line.strip_prefix(word) {
                return Ok(rest.trim().into());
            }
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().try_into()?).context("a process has a number")?;
        Ok(kill_process(pid, signal)?)
    }
}

/// Runs the scenario. Returns whether the late write was refused and the file is in the order of tokens.
fn direct() -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let storage = Storage::open(folder.path())?;
    println!("three processes, one storage behind a token gate");
    let first = Node::start(1, folder.path(), &storage, "found")?;
    let seed = first.hear("ready")?;
    let mut nodes = vec![first];
    for number in [2, 3] {
        let node = Node::start(number, folder.path(), &storage, &seed)?;
        node.hear("ready")?;
        nodes.push(node);
    }
    let mut old = nodes.remove(0);
    let token = old.hear("owner under")?;
    storage.until("the first owner writes", TIMEOUT, |state| state.lines_under(&token) >= AT_WORK)?;

    // Stop it between the check of its guard and the write: the one moment that no check covers.
    writeln!(old.orders, "hold")?;
    old.hear("checked: may write")?;
    old.signal(Signal::STOP)?;
    writeln!(old.orders, "go")?;
    println!("n1 is stopped between its check and its write; nothing ends its process");
    let begun = Instant::now();

    storage.until("the next owner writes", TIMEOUT, |state| {
        state.tokens().last().is_some_and(|last| *last != token && state.lines_under(last) >= AT_WORK)
    })?;
    let next = storage.look().tokens().last().cloned().context("an owner writes")?;
    println!("the next owner writes under {next}, {:.2} s after the stop", begun.elapsed().as_secs_f64());

    old.signal(Signal::CONT)?;
    println!("n1 is continued");
    let refused = old.hear("refused")?;
    old.hear("gives up")?;
    // The present holder of the lock is not disturbed.
    let before = storage.look().lines_under(&next);
    storage.until("the next owner continues", TIMEOUT, |state| state.lines_under(&next) >= before + AT_WORK)?;

    let state = storage.look();
    println!("{}", state.summary());
    ensure!(state.refused_under(&token) > 0, "the storage saw no late write, so the run did not show what it should");
    let sound = state.in_order() && state.refused_under(&next) == 0;
    println!(
        "{}",
        if sound {
            format!("the late write was refused ({refused}), and the file is in the order of tokens")
        } else {
            "WRONG: the file is not in the order of tokens, or the owner was refused".into()
        }
    );
    Ok(sound)
}
