//! One data folder and two processes, one after the other: what the first one held is not taken over while its work may
//! still run, wherever the second one looks from (P3).
//!
//! ```text
//!   former: lock, a thread that writes on ── shutdown() ──▶ the folder is free, and the thread still writes
//!   successor:   resume on the same folder ──▶ is the former process gone? ──▶ only then its lock
//! ```
//!
//! And a token gate in front of one file that two processes write to.
//!
//! Each process is this test binary, started once more. Namespaces need `unshare` and the right to use it; where they are
//! not to be had, the test that needs them says so and proves nothing.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate::lock::{GateError, TokenGate};
use quorate::{Cluster, Config, NodeId, Revision, View};
use rustix::process::{Pid, Signal, getpid, kill_process};

const PART: &str = "QUORATE_TEST_PART";
const FOLDER: &str = "QUORATE_TEST_FOLDER";

/// How long a successor waits for a lock that it must not get. Where it gets one, that takes less than a second.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// A liveness limit that a busy machine does not reach.
const LIMIT: Duration = Duration::from_secs(60);

/// Not a test: one of the two processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the tests of this file start it"]
async fn one_process() -> Result<()> {
    let Ok(part) = std::env::var(PART) else { return Ok(()) };
    let folder = PathBuf::from(std::env::var(FOLDER)?);
    if let Some(token) = part.strip_prefix("writer ") {
        return write_through_a_gate(&folder, token.parse()?);
    }
    let ready = Cluster::builder(NodeId::new(1))
        .data(folder.join("n1"))
        .listen_plaintext("127.0.0.1:0".parse()?)
        .without_fencing()
        .config(Config { work_dies_with_process: true, ..Config::default() })
        .timeout(LIMIT);
    if part == "former" {
        let cluster = ready.bootstrap().await?;
        tokio::time::timeout(LIMIT, cluster.active()).await??;
        let (guard, who) = (cluster.lock("vm/100").await?, cluster.identity());
        let declared = |view: &View| view.cluster.life(who).is_some_and(|life| life.process_bound);
        tokio::time::timeout(LIMIT, cluster.watch().until(declared)).await?;
        write(&folder, "former")?;
        std::thread::spawn({
            let folder = folder.clone();
            move || while write(&folder, "former").is_ok() {}
        });
        cluster.shutdown().await;
        say("shut-down");
        std::future::pending::<()>().await;
        drop(guard);
    } else {
        let cluster = ready.resume().await?;
        let wait = if part == "successor" { LOCK_TIMEOUT } else { LIMIT };
        match cluster.lock_with_timeout("vm/100", wait).await {
            Ok(_guard) => (0..100).try_for_each(|_| write(&folder, "successor"))?,
            Err(error) => println!("{error}"),
        }
        say("ended");
    }
    Ok(())
}

/// Writes under a token until it is superseded. The first of the two stops itself in the middle of its third write.
fn write_through_a_gate(folder: &Path, token: Revision) -> Result<()> {
    let gate = TokenGate::durable(folder.join("token"))?.timeout(Duration::from_millis(500));
    for round in 0..100 {
        let stops = round == 2 && token == Revision::new(40);
        let admitted = gate.admit_and(token, || {
            if stops {
                say("stopped");
                kill_process(getpid(), Signal::STOP)?;
            }
            write(folder, &token.to_string())
        });
        match admitted {
            Ok(written) => written?,
            Err(GateError::Busy { holder, .. }) => say(&format!("waits for {holder}")),
            Err(GateError::Superseded { .. }) => break,
            Err(error) => return Err(error.into()),
        }
    }
    say("ended");
    Ok(())
}

/// One effect under the lock.
fn write(folder: &Path, who: &str) -> Result<()> {
    let mut journal = OpenOptions::new().create(true).append(true).open(folder.join("journal"))?;
    journal.write_all(format!("{who}\n").as_bytes())?;
    std::thread::sleep(Duration::from_millis(5));
    Ok(())
}

/// Past the test harness, which would keep it until the end.
fn say(word: &str) {
    let mut out = std::io::stdout().lock();
    let _the_test_has_ended = writeln!(out, "\n{word}").and_then(|()| out.flush());
}

/// A process that plays one part. Dropping it ends it.
struct Process(Child, BufReader<ChildStdout>);

impl Process {
    fn start(part: &str, folder: &Path, through: &[&str]) -> Result<Self> {
        let exe = std::env::current_exe()?;
        let mut words = through.iter().map(Into::into).chain([exe.into_os_string()]);
        let mut command = Command::new(words.next().context("a program")?);
        command.args(words).args(["--ignored", "--exact", "one_process", "--nocapture", "--test-threads=1"]);
        command.env(PART, part).env(FOLDER, folder).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stdout.take().context("it is piped")?);
        Ok(Self(child, lines))
    }

    fn until(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        while line.trim() != word {
            line.clear();
            ensure!(self.1.read_line(&mut line)? > 0, "it ended before `{word}`: {:?}", self.0.wait());
        }
        Ok(())
    }
}

/// The new owner is let in while the former one has the gate open, the former one's late write is refused, and while a write of
/// the former one is under way the new owner waits, is told for whom, and goes on as soon as it is over.
#[test]
fn two_processes_share_a_gate_and_the_former_owner_cannot_lock_the_next_one_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut former = Process::start("writer r40", folder.path(), &[])?;
    former.until("stopped")?;
    let mut next = Process::start("writer r42", folder.path(), &[])?;
    next.until(&format!("waits for process {}", former.0.id()))?;
    assert_eq!(writers(folder.path())?, ["r40"]);
    let former_pid = Pid::from_raw(former.0.id().try_into()?).context("a process")?;
    kill_process(former_pid, Signal::CONT)?;
    former.until("ended")?;
    next.until("ended")?;
    assert_eq!(writers(folder.path())?, ["r40", "r42"], "a late write");
    Ok(())
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _was_reaped = self.0.wait();
    }
}

/// Who wrote, in the order of the writes, without repetitions.
fn writers(folder: &Path) -> Result<Vec<String>> {
    let mut who: Vec<String> = std::fs::read_to_string(folder.join("journal"))?.lines().map(String::from).collect();
    who.dedup();
    Ok(who)
}

#[test]
fn a_successor_takes_over_at_once_when_the_former_process_is_gone_and_not_before() -> Result<()> {
    for killed in [false, true] {
        let folder = tempfile::tempdir()?;
        let mut former = Process::start("former", folder.path(), &[])?;
        former.until("shut-down")?;
        if killed {
            drop(former);
            Process::start("rightful successor", folder.path(), &[])?.until("ended")?;
            assert_eq!(writers(folder.path())?, ["former", "successor"]);
        } else {
            Process::start("successor", folder.path(), &[])?.until("ended")?;
            assert_eq!(writers(folder.path())?, ["former"], "two writers");
        }
    }
    Ok(())
}

/// Two containers on one host with one folder: neither sees the other's processes. Also where /proc is that of the host, in
/// which the numbers are others than the process believes.
#[test]
fn a_process_of_another_pid_namespace_is_not_taken_for_gone() -> Result<()> {
    const APART: [&str; 6] = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"];
    for own_proc in [true, false] {
        let apart: Vec<&str> = APART.into_iter().chain(own_proc.then_some("--mount-proc")).collect();
        let (program, arguments) = apart.split_first().context("a program")?;
        if !Command::new(program).args(arguments).arg("true").status().is_ok_and(|status| status.success()) {
            println!("no PID namespace can be made here");
            return Ok(());
        }
        for former_apart in [true, false] {
            let folder = tempfile::tempdir()?;
            let mut former = Process::start("former", folder.path(), if former_apart { &apart } else { &[] })?;
            former.until("shut-down")?;
            Process::start("successor", folder.path(), &apart)?.until("ended")?;
            assert_eq!(writers(folder.path())?, ["former"], "two writers: own /proc {own_proc}, {former_apart}");
        }
    }
    Ok(())
}
