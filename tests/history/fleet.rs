//! The three processes, as whoever does harm to them sees them.
//!
//! ```text
//!   this test ──┬─ n1 ─ stdin: orders      the same binary, `--ignored --exact node`
//!               ├─ n2                      kill -9, SIGSTOP, SIGCONT by their own numbers; a port and a folder for good
//!               └─ n3
//! ```

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorate::testing::sim::Rng;
use rustix::process::{Pid, Signal, kill_process};

use crate::node::Part;
use crate::op::{self, Call, CallResult, Op};

/// How many nodes there are.
pub(crate) const NODES: u64 = 3;

/// How long anything may take that has to come.
const TIMEOUT: Duration = Duration::from_secs(60);

/// In the log of a node, where this test begins another process of it: whatever stands before is of one that has ended.
const BEGINS: &str = "! begins n";

/// A node, and the process that plays it, if one does.
struct Member {
    node: u64,
    address: String,
    child: Option<Child>,
}

/// All of them. Dropping it ends them.
pub(crate) struct Fleet {
    pub(crate) folder: PathBuf,
    members: Vec<Member>,
    seed: u64,
    starts: u64,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            // One that has ended already cannot be killed; it is waited for all the same.
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// A port that is free, and below those that the system gives away for a while by itself.
fn port(rng: &mut Rng) -> Result<TcpListener> {
    (0..100)
        .find_map(|_| TcpListener::bind(("127.0.0.1", u16::try_from(rng.between(15_000, 32_000)).ok()?)).ok())
        .context("a free port")
}

/// A process ends when its life is over, or is killed: by this test or by its dead-man. Anything else is a defect.
fn expected(node: u64, status: ExitStatus) -> Result<()> {
    ensure!(status.success() || status.signal() == Some(9), "n{node} ended with {status}; n{node}.out says why");
    Ok(())
}

fn log_of(folder: &Path, node: u64) -> PathBuf {
    folder.join(format!("n{node}.log"))
}

/// Everything that a node's processes have written so far.
pub(crate) fn log(folder: &Path, node: u64) -> String {
    std::fs::read_to_string(log_of(folder, node)).unwrap_or_default()
}

/// What the process wrote that was begun last.
fn last(log: &str) -> &str {
    log.rfind(BEGINS).and_then(|at| log.get(at..)).unwrap_or_default()
}

impl Fleet {
    /// A cluster of three, all of them up.
    pub(crate) fn found(folder: &Path, seed: u64) -> Result<Self> {
        // The ports of two runs at a time must not depend on the seed alone.
        let mut rng = Rng::new(seed ^ u64::from(std::process::id()));
        let held = (0..NODES).map(|_| port(&mut rng)).collect::<Result<Vec<_>>>()?;
        let mut members = vec![];
        for (node, listener) in (1..).zip(held) {
            members.push(Member { node, address: listener.local_addr()?.to_string(), child: None });
        }
        let mut fleet = Self { folder: folder.into(), members, seed, starts: 0 };
        let seed = fleet.address(1)?;
        for (node, way) in [(1, "found"), (2, seed.as_str()), (3, seed.as_str())] {
            fleet.start(node, way)?;
            fleet.hear(node, "! active ")?;
        }
        Ok(fleet)
    }

    fn address(&self, node: u64) -> Result<String> {
        self.members.iter().find(|member| member.node == node).map(|m| m.address.clone()).context("a node")
    }

    fn member(&mut self, node: u64) -> Result<&mut Member> {
        self.members.iter_mut().find(|member| member.node == node).context("a node")
    }

    fn start(&mut self, node: u64, way: &str) -> Result<()> {
        self.starts += 1;
        let (address, folder) = (self.address(node)?, self.folder.to_str().context("a path")?.to_string());
        let seed = Rng::new(self.seed ^ self.starts).draw();
        let mut log = File::options().append(true).create(true).open(log_of(&self.folder, node))?;
        writeln!(log, "{BEGINS}{node}")?;
        let (key, packed) = Part { node, way: way.into(), address, seed, folder }.pack();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--ignored", "--exact", "node", "--nocapture", "--test-threads=1"]).env(key, packed);
        let said = File::options().append(true).create(true).open(self.folder.join(format!("n{node}.out")))?;
        let child = command.stdin(Stdio::piped()).stdout(said.try_clone()?).stderr(said).spawn()?;
        self.member(node)?.child = Some(child);
        Ok(())
    }

    /// Starts whoever is not running. How many had ended by themselves: their life was over.
    pub(crate) fn revive(&mut self) -> Result<usize> {
        let mut ended = 0;
        for node in 1..=NODES {
            let member = self.member(node)?;
            if let Some(child) = &mut member.child
                && let Some(status) = child.try_wait()?
            {
                expected(node, status)?;
                member.child = None;
                ended += 1;
            }
            if member.child.is_none() {
                self.start(node, "resume")?;
            }
        }
        Ok(ended)
    }

    /// Ends a process without a word. `false` if it had ended already.
    pub(crate) fn kill(&mut self, node: u64) -> Result<bool> {
        let Some(mut child) = self.member(node)?.child.take() else { return Ok(false) };
        if let Some(status) = child.try_wait()? {
            expected(node, status)?;
            return Ok(false);
        }
        child.kill()?;
        expected(node, child.wait()?).map(|()| true)
    }

    /// SIGSTOP and SIGCONT. One that has ended meanwhile is nobody's any more.
    pub(crate) fn signal(&mut self, node: u64, signal: Signal) -> Result<()> {
        if let Some(child) = &mut self.member(node)?.child
            && child.try_wait()?.is_none()
        {
            kill_process(Pid::from_raw(child.id().try_into()?).context("a process has a number")?, signal)?;
        }
        Ok(())
    }

    /// Says a word to everybody and waits until each has answered; whoever ends meanwhile begins anew and is told again.
    pub(crate) fn all(&mut self, word: &str, answer: &str) -> Result<()> {
        let give_up = Instant::now() + TIMEOUT;
        let mut told = vec![];
        loop {
            self.revive()?;
            for member in &mut self.members {
                let Some(child) = &mut member.child else { continue };
                let (id, stdin) = (child.id(), child.stdin.as_mut().context("it is piped")?);
                if !word.is_empty() && !told.contains(&id) && writeln!(stdin, "{word}").is_ok() {
                    told.push(id);
                }
            }
            let waits = (1..=NODES).find(|node| !self.says(*node, answer));
            let Some(waits) = waits else { return Ok(()) };
            ensure!(Instant::now() < give_up, "n{waits} does not say `{answer}`");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends everybody and waits for it.
    pub(crate) fn end(mut self) -> Result<()> {
        for member in &mut self.members {
            let Some(mut child) = member.child.take() else { continue };
            drop(child.stdin.take());
            expected(member.node, child.wait()?)?;
        }
        Ok(())
    }

    fn hear(&self, node: u64, word: &str) -> Result<()> {
        let give_up = Instant::now() + TIMEOUT;
        while !self.says(node, word) {
            ensure!(Instant::now() < give_up, "n{node} does not say `{word}`");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Whether the process that was begun last has said that.
    fn says(&self, node: u64, word: &str) -> bool {
        last(&log(&self.folder, node)).lines().any(|line| line.starts_with(word))
    }

    /// Whoever holds a lock just now, as far as can be told from outside.
    pub(crate) fn holders(&self) -> Result<Vec<u64>> {
        let mut found = vec![];
        for node in 1..=NODES {
            let text = log(&self.folder, node);
            let mut ops: Vec<Op> = vec![];
            op::read(last(&text), &mut ops)?;
            let given_back =
                |token| ops.iter().any(|op| matches!(op.call, Call::Release { token: t, .. } if t == token));
            let holds = |op: &Op| matches!(op.outcome, CallResult::Granted(token) if !given_back(token));
            if ops.iter().any(holds) {
                found.push(node);
            }
        }
        Ok(found)
    }
}
