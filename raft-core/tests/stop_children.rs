//! Bound children die with their lease, with their parent and with their handle, and their own children with them: real
//! processes, watched through descriptors of their own, so that no reused number can pass for a death.
//!
//! `cargo test -p quorate-raft-core --test stop_children -- --nocapture` prints how long after their parent.

mod victim;

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use quorate_membership::{NodeId, Revision, Role, Stop};
use quorate_raft_core::testing::{DeviceBehaviour, MemoryNetwork, TestCluster, fast};
use quorate_raft_core::{BoundChild, Deadman, Lease, Node, NodeSettings, ProtectError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};
use tokio::time::{sleep, timeout};
use victim::{Victim, boottime, part, say};

const TIMEOUT: Duration = Duration::from_secs(60);
const OWN: Stop = Stop::Own { bound: Duration::from_millis(100) };
const TOKEN: Revision = Revision::new(19);

/// A worker with two children of its own that would live for a long time; deaf to everything that can be ignored.
fn family() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' TERM HUP INT; sleep 1000 & echo $!; sh -c 'sleep 1000 & echo $!; wait' & wait"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// A process, by a descriptor that stands for it and for no later one of that number.
struct Watched(OwnedFd, i32);

impl Watched {
    fn new(number: i32) -> Result<Self> {
        let pid = Pid::from_raw(number).context("a number of a process")?;
        Ok(Self(pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("process {number}"))?, number))
    }

    fn ends_within(&self, timeout: Duration) -> Result<bool> {
        let mut one = [PollFd::new(&self.0, PollFlags::IN)];
        let timeout = Timespec::try_from(timeout)?;
        Ok(poll(&mut one, Some(&timeout))? == 1)
    }

    fn lives(&self) -> Result<bool> {
        Ok(!self.ends_within(Duration::ZERO)?)
    }
}

/// The worker, its guardian and the two grandchildren.
fn members(child: &mut BoundChild) -> Result<Vec<Watched>> {
    let mut lines = BufReader::new(child.stdout.take().context("it is piped")?).lines();
    let mut grandchild = || Ok(lines.next().context("it says more")??.trim().parse::<i32>()?);
    let (first, second): (Result<i32>, Result<i32>) = (grandchild(), grandchild());
    [child.pid() as i32, child.group() as i32, first?, second?].into_iter().map(Watched::new).collect()
}

fn all_live(family: &[Watched]) -> Result<()> {
    for one in family {
        ensure!(one.lives()?, "{} is dead already", one.1);
    }
    Ok(())
}

fn all_end(family: &[Watched]) -> Result<()> {
    for one in family {
        ensure!(one.ends_within(TIMEOUT)?, "{} lives on", one.1);
    }
    Ok(())
}

async fn alone() -> Result<(TestCluster, Lease)> {
    let mut t = TestCluster::start_protected(1, OWN).await?;
    let lease = t.node(1)?.lease()?;
    timeout(TIMEOUT, lease.held()).await.context("no lease")?;
    Ok((t, lease))
}

async fn unprotected(lease: &Lease) -> Result<()> {
    let none = async {
        while !lease.view().protecting.is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIMEOUT, none).await.with_context(|| format!("still protected: {:?}", lease.view()))
}

/// A worker that ends with 7 when it is asked, and leaves a child behind.
fn polite() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "trap 'exit 7' TERM; sleep 1000 & echo $!; sh -c 'sleep 1000 & echo $!; wait' & wait; wait"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_is_asked_to_stop_has_its_grace_and_no_more() -> Result<()> {
    let (_t, lease) = alone().await?;
    let mut child = lease.spawn(polite(), "polite", TOKEN).await?;
    let family = members(&mut child)?;
    assert_eq!(child.stop(TIMEOUT).await?.code(), Some(7));
    all_end(&family)?;
    // Once more is no mistake.
    assert_eq!(child.stop(TIMEOUT).await?.code(), Some(7));
    let mut deaf = lease.spawn(self::family(), "deaf", TOKEN).await?;
    let family = members(&mut deaf)?;
    assert_eq!(deaf.stop(Duration::from_millis(100)).await?.signal(), Some(Signal::KILL.as_raw()));
    all_end(&family)?;
    unprotected(&lease).await
}

/// However the guard goes, the lock is not released while a process that was started under it is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_outlives_every_process_that_was_started_under_it() -> Result<()> {
    let (mut t, lease) = alone().await?;
    let name = quorate_membership::Name::new("vm/100")?;
    for released in [true, false] {
        let node = t.node(1)?.handle()?;
        let who = node.identity().context("it joined")?;
        let guard = node.lock_for(who, name.clone(), Some(TIMEOUT)).await?;
        let mut child = guard.spawn(family()).await?;
        assert_eq!((child.what(), child.token()), ("vm/100", guard.token()));
        let family = members(&mut child)?;
        all_live(&family)?;
        let mut view = node.watch();
        let is_free =
            |view: &quorate_raft_core::View| view.cluster.store().lock(&name).is_none_or(|l| l.grant.is_none());
        // The watched view shows the grant within some milliseconds.
        timeout(TIMEOUT, view.wait_for(|view| !is_free(view))).await.context("the lock is never shown")??;
        let free = async { view.wait_for(is_free).await.map(|_| ()) };
        let seen = async {
            timeout(TIMEOUT, free).await.context("the lock stays held")??;
            // Not "soon": when the lock is free, they are gone.
            for one in &family {
                ensure!(!one.lives()?, "{} lives on", one.1);
            }
            Ok(())
        };
        let over = async {
            if released {
                guard.release().await?;
            } else {
                drop(guard);
            }
            Ok(())
        };
        tokio::try_join!(over, seen)?;
        drop(child);
        unprotected(&lease).await?;
    }
    Ok(())
}

/// Whoever gives up on a start leaves a child that only the guard knows of. The lock is free when it is gone, not before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_under_a_lock_that_is_given_up_holds_the_lock_until_it_is_gone() -> Result<()> {
    let (mut t, lease) = alone().await?;
    let name = quorate_membership::Name::new("vm/100")?;
    let marks = tempfile::tempdir()?;
    for (turn, wait_ms) in [0, 1, 2, 5, 10, 20, 40].into_iter().enumerate() {
        let node = t.node(1)?.handle()?;
        let who = node.identity().context("it joined")?;
        let guard = node.lock_for(who, name.clone(), Some(TIMEOUT)).await?;
        let mark = marks.path().join(turn.to_string());
        let mut command = Command::new("sh");
        // Writes for as long as it lives.
        command.args(["-c", "while :; do echo x >> \"$0\"; done"]).arg(&mark).stdin(Stdio::null());
        let _given_up = timeout(Duration::from_millis(wait_ms), guard.spawn(command)).await;
        guard.release().await?;
        // The lock is free: nothing writes any more.
        let length = || std::fs::metadata(&mark).map_or(0, |data| data.len());
        let before = length();
        sleep(Duration::from_millis(50)).await;
        assert_eq!(length(), before, "it wrote after the lock was released, having been waited for {wait_ms} ms");
        unprotected(&lease).await?;
    }
    Ok(())
}

/// Not a test: a node with a dead-man and a family of bound children, which the tests kill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is killed; the tests of this file start it"]
async fn victim() -> Result<()> {
    if part().is_none() {
        return Ok(());
    }
    let (board, folder, one) = (MemoryNetwork::new(), tempfile::tempdir()?, NodeId::new(1));
    let node = Node::start(NodeSettings {
        node: one,
        data: folder.path().join("data"),
        addresses: vec![MemoryNetwork::address(one)?],
        config: fast(),
        transport: board.transport(one),
        fencer: None,
        stop: Some(Box::new(Deadman::new())),
        trust_vm_clock: true,
    })
    .await?;
    board.connect(one, node.service());
    node.bootstrap(Role::Voter, TIMEOUT).await?;
    let lease = node.lease().context("it has joined")?;
    timeout(TIMEOUT, lease.held()).await.context("no lease")?;
    let mut child = lease.spawn(family(), "family", TOKEN).await?;
    let family = members(&mut child)?;
    for one in &family {
        say("member", one.1 as u128);
    }
    std::future::pending().await
}

/// A victim and its family.
fn start() -> Result<(Victim, Vec<Watched>)> {
    let mut victim = Victim::start("parent");
    let family: Result<Vec<_>> = (0..4).map(|_| Watched::new(victim.expect("member") as i32)).collect();
    let family = family?;
    all_live(&family)?;
    Ok((victim, family))
}

fn signal(pid: u32, signal: Signal) -> Result<()> {
    Ok(kill_process(Pid::from_raw(pid as i32).context("a number of a process")?, signal)?)
}

/// How long after the end of the parent each of them was known to have ended: worker, guardian, grandchildren.
fn report(claim: &str, victim: &mut Victim, family: &[Watched]) -> Result<()> {
    let ended = victim.ended();
    ensure!(ended.signal == Some(9), "{ended:?}");
    all_end(family)?;
    println!("{claim}: all four dead {:?} after the end of their parent", boottime() - ended.at);
    Ok(())
}

#[test]
fn when_the_parent_is_killed_its_child_and_grandchildren_die() -> Result<()> {
    for _ in 0..5 {
        let (mut victim, family) = start()?;
        signal(victim.id(), Signal::KILL)?;
        report("parent killed", &mut victim, &family)?;
    }
    Ok(())
}

#[test]
fn when_the_parent_is_stopped_its_dead_man_ends_it_and_them() -> Result<()> {
    let (mut victim, family) = start()?;
    signal(victim.id(), Signal::STOP)?;
    report("parent stopped", &mut victim, &family)
}

/// A stopped guardian kills nobody; that the kernel wakes an orphaned group is what saves it.
#[test]
fn a_family_that_is_stopped_with_its_guardian_dies_as_well() -> Result<()> {
    let (mut victim, family) = start()?;
    let group = Pid::from_raw(family[1].1).context("the guardian leads the group")?;
    kill_process_group(group, Signal::STOP)?;
    signal(victim.id(), Signal::KILL)?;
    report("family stopped", &mut victim, &family)
}

/// The process lives on, its mechanism ends nothing, and the keeper kills what was bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_end_of_the_lease_the_keeper_kills_it() -> Result<()> {
    let mut t = TestCluster::start_protected(3, OWN).await?;
    t.fencer.always(DeviceBehaviour::Fail);
    let lease = t.node(3)?.lease()?;
    timeout(TIMEOUT, lease.held()).await.context("no lease")?;
    let mut child = lease.spawn(family(), "family", TOKEN).await?;
    let family = members(&mut child)?;
    ensure!(lease.view().armed && lease.view().protecting == ["family"], "{:?}", lease.view());
    signal(child.pid(), Signal::STOP)?;
    t.isolate(3);
    timeout(TIMEOUT, lease.lost()).await.context("no notice")?;
    all_end(&family)?;
    let status = timeout(TIMEOUT, child.wait()).await.context("its end is not noticed")??;
    assert_eq!(status.signal(), Some(9));
    // The keeper kills first and fires then; what ends before the end of the lease never fires.
    let mechanism = t.node(3)?.mechanism()?.clone();
    let fired = async {
        while mechanism.seen().fired == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, fired).await.context("killed before the end of the lease")?;
    unprotected(&lease).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_left_when_the_child_ends_by_itself_is_killed_before_it_is_said_to_have_stopped() -> Result<()> {
    let (_t, lease) = alone().await?;
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 1000 & echo $!; read -r line; exit 7"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = lease.spawn(command, "short", TOKEN).await?;
    assert_eq!((child.what(), child.token()), ("short", TOKEN));
    let mut lines = BufReader::new(child.stdout.take().context("it is piped")?).lines();
    let straggler = Watched::new(lines.next().context("it says whom it leaves")??.parse()?)?;
    let worker = Watched::new(child.pid() as i32)?;
    ensure!(straggler.lives()? && worker.lives()?, "it waits for its input");
    drop(child.stdin.take());
    let status = timeout(TIMEOUT, child.wait()).await.context("its end is not noticed")??;
    assert_eq!(status.code(), Some(7));
    ensure!(!straggler.lives()?, "what it left behind lives on");
    unprotected(&lease).await?;
    // Said again, it is the same; and nothing of that number is killed any more.
    assert_eq!((child.wait().await?.code(), child.kill().await?.code()), (Some(7), Some(7)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_or_dropped_nobody_of_its_group_is_left() -> Result<()> {
    let (_t, lease) = alone().await?;
    let mut killed = lease.spawn(family(), "killed", TOKEN).await?;
    let mut dropped = lease.spawn(family(), "dropped", TOKEN).await?;
    let (first, second) = (members(&mut killed)?, members(&mut dropped)?);
    all_live(&first)?;
    assert_eq!(killed.kill().await?.signal(), Some(9));
    // Not waited for: that was done.
    for one in &first {
        ensure!(!one.lives()?, "{} lives on", one.1);
    }
    all_live(&second)?;
    drop(dropped);
    all_end(&second)?;
    unprotected(&lease).await
}

/// Without its guardian the grandchildren would outlive this process: then nobody lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_loses_its_guardian_is_killed() -> Result<()> {
    let (_t, lease) = alone().await?;
    let mut child = lease.spawn(family(), "family", TOKEN).await?;
    let family = members(&mut child)?;
    signal(child.group(), Signal::KILL)?;
    all_end(&family)?;
    assert_eq!(timeout(TIMEOUT, child.wait()).await.context("its end is not noticed")??.signal(), Some(9));
    unprotected(&lease).await
}

/// The guardian has one task: it holds no descriptor of ours, and ignores what its group is sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guardian_holds_nothing_and_is_deaf() -> Result<()> {
    let (_t, lease) = alone().await?;
    let mut child = lease.spawn(family(), "family", TOKEN).await?;
    let family = members(&mut child)?;
    let guardian = child.group();
    assert_eq!(std::fs::read_dir(format!("/proc/{guardian}/fd"))?.count(), 0);
    assert_eq!(std::fs::read_to_string(format!("/proc/{guardian}/comm"))?, "quorate-guard\n");
    for heard in [Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1, Signal::CONT] {
        signal(guardian, heard)?;
    }
    // Nobody but its parent's death may have it act.
    let status = Command::new("sh").args(["-c", &format!("kill -64 {guardian}")]).status()?;
    ensure!(status.success(), "the signal was not sent");
    sleep(Duration::from_millis(300)).await;
    all_live(&family)?;
    child.kill().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_bound_is_not_started_and_nothing_stays_protected() -> Result<()> {
    let (_t, lease) = alone().await?;
    let refused = async |command: Command| match lease.spawn(command, "refused", TOKEN).await {
        Err(ProtectError::Spawn(why)) => Ok(why),
        other => Err(anyhow::anyhow!("{other:?}")),
    };
    let folder = tempfile::tempdir()?;
    let (tool, trace) = (folder.path().join("tool"), folder.path().join("trace"));
    std::fs::write(&tool, format!("#!/bin/sh\ntouch {}\n", trace.display()))?;
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o4755))?;
    let why = refused(Command::new(&tool)).await?;
    ensure!(why.contains("is setuid") && why.contains("could outlive the lease"), "{why}");
    ensure!(!trace.exists(), "it ran");
    let why = refused(Command::new(folder.path().join("nowhere"))).await?;
    ensure!(why.contains("No such file"), "{why}");
    unprotected(&lease).await?;
    ensure!(lease.view().trouble.is_none(), "{:?}", lease.view());
    Ok(())
}

/// Nobody waits for the child any more when it is there: it dies, and nothing stays armed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_nobody_waits_for_leaves_nothing_running() -> Result<()> {
    let (_t, lease) = alone().await?;
    for millis in [0, 1, 2, 4, 8, 16] {
        let folder = tempfile::tempdir()?;
        let mark = folder.path().join("pid");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo $$ > {}.new; mv {0}.new {0}; sleep 1000", mark.display())]);
        let started = timeout(Duration::from_millis(millis), lease.spawn(command, "cancelled", TOKEN)).await;
        drop(started);
        unprotected(&lease).await?;
        if let Ok(pid) = std::fs::read_to_string(&mark) {
            ensure!(Watched::new(pid.trim().parse()?).map_or(Ok(true), |one| one.ends_within(TIMEOUT))?, "it runs");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_mechanism_ends_no_process_binds_none() -> Result<()> {
    for promise in [Stop::Tokens, Stop::Unbounded] {
        let mut t = TestCluster::start_protected(1, promise).await?;
        let lease = t.node(1)?.lease()?;
        timeout(TIMEOUT, lease.held()).await.context("no lease")?;
        let refused = lease.spawn(Command::new("true"), "worker", TOKEN).await;
        ensure!(matches!(refused, Err(ProtectError::Unbound(stop)) if stop == promise), "{refused:?}");
        ensure!(lease.view().protecting.is_empty(), "{:?}", lease.view());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_pipes_are_those_of_the_command() -> Result<()> {
    let (_t, lease) = alone().await?;
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = lease.spawn(command, "cat", TOKEN).await?;
    ensure!(child.stderr.is_none(), "it was not piped");
    let mut stdin = child.stdin.take().context("it is piped")?;
    std::io::Write::write_all(&mut stdin, b"hello")?;
    drop(stdin);
    let mut said = String::new();
    child.stdout.take().context("it is piped")?.read_to_string(&mut said)?;
    assert_eq!((said.as_str(), child.wait().await?.success()), ("hello", true));
    Ok(())
}
