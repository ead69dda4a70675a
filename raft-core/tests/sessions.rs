//! Sessions on real nodes in one process: kept alive through any of them, ended late and never early.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use quorate_membership::{Command, Holder, Name, Nonce, Reason, Request, Revision, Session, SessionId};
use quorate_raft_core::rpc::KeptAlive;
use quorate_raft_core::testing::TestCluster;

const TIMEOUT: Duration = Duration::from_secs(60);
const TTL: Duration = Duration::from_millis(800);

fn vm() -> Name {
    Name::new("vm/100").unwrap_or_else(|error| unreachable!("{error}"))
}

/// What a server would make of a client's request at this node.
async fn ask(t: &mut TestCluster, at: u64, nonce: u128, make: impl FnOnce(Request) -> Command) -> Result<Revision> {
    let service = t.node(at)?.handle()?.service();
    let since = *service.applied().borrow();
    Ok(service.command(make(Request { nonce: Nonce::new(nonce), since })).await?.revision)
}

async fn open(t: &mut TestCluster, at: u64, nonce: u128, lock_delay: Duration) -> Result<SessionId> {
    let session = Session { ttl: TTL, lock_delay, label: Reason::new("a tool")?, owner: None };
    let revision = ask(t, at, nonce, |request| Command::OpenSession { request, session }).await?;
    Ok(SessionId::new(revision.get()))
}

async fn lock(t: &mut TestCluster, at: u64, nonce: u128, session: SessionId) -> Result<()> {
    let holder = Holder::Session(session);
    ask(t, at, nonce, |request| Command::Lock { request, name: vm(), holder, wait: true }).await.map(|_| ())
}

async fn alive(t: &mut TestCluster, at: u64, session: SessionId) -> Result<KeptAlive> {
    Ok(t.node(at)?.handle()?.service().keep_session(session, TIMEOUT).await)
}

fn holder(t: &mut TestCluster, at: u64) -> Result<Option<Holder>> {
    let view = t.node(at)?.handle()?.view();
    Ok(view.cluster.store().lock(&vm()).and_then(|lock| lock.grant).map(|grant| grant.holder))
}

/// The time to live is a lower bound: counted from the sending of the last keep-alive that was answered, through any node,
/// over a change of leader; and the lock-delay comes on top.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_lives_as_long_as_was_promised_and_its_locks_are_held_back() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    let delay = Duration::from_millis(300);
    let (first, second) = (open(&mut t, 1, 1, delay).await?, open(&mut t, 2, 2, delay).await?);
    lock(&mut t, 1, 3, first).await?;
    lock(&mut t, 3, 4, second).await?;
    let leader = t.leader().await?;
    let mut sent = Instant::now();
    for round in 0..12_u64 {
        let at = round % 3 + 1;
        sent = Instant::now();
        ensure!(alive(&mut t, at, first).await? == KeptAlive::Alive { ttl: TTL }, "kept alive in round {round}");
        ensure!(alive(&mut t, at, second).await? == KeptAlive::Alive { ttl: TTL });
        if round == 6 {
            t.node(leader.get())?.handle()?.hand_over(None).await?;
        }
        tokio::time::sleep(TTL / 4).await;
    }
    ensure!(holder(&mut t, 1)? == Some(first.into()), "three times its time to live, and still open");
    // From here on nobody speaks for the first.
    while holder(&mut t, 2)? != Some(second.into()) {
        ensure!(sent.elapsed() < TIMEOUT, "it never ends");
        ensure!(alive(&mut t, 2, second).await? == KeptAlive::Alive { ttl: TTL });
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ensure!(
        sent.elapsed() >= TTL + delay,
        "passed on after {:?}, and {TTL:?} and {delay:?} were promised",
        sent.elapsed()
    );
    ensure!(alive(&mut t, 1, first).await? == KeptAlive::Ended);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_closed_passes_on_at_once_and_what_is_repeated_counts_once() -> Result<()> {
    let mut t = TestCluster::start(3).await?;
    let hour = Duration::from_secs(3600);
    let first = open(&mut t, 1, 1, hour).await?;
    let again = open(&mut t, 2, 1, hour).await?;
    ensure!(again > first, "the second copy stands later in the log");
    t.until("it opened one session", |state| state.store().sessions().map(|(id, _)| id).eq([first])).await?;
    let second = open(&mut t, 1, 2, hour).await?;
    lock(&mut t, 1, 3, first).await?;
    lock(&mut t, 1, 4, second).await?;
    t.node(3)?.handle()?.service().command(Command::CloseSession { session: first }).await?;
    t.until("passed on", |state| state.store().held_by(second.into()).next().is_some()).await?;
    Ok(())
}

/// Nobody says by time that a session has ended but the leader whose waits count, and nobody outside speaks for a member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_theirs_to_say_is_refused_to_those_outside() -> Result<()> {
    let mut t = TestCluster::start(1).await?;
    let session = open(&mut t, 1, 1, TTL).await?;
    let who = t.node(1)?.handle()?.identity().unwrap_or_else(|| unreachable!("it has joined"));
    let under = t.node(1)?.handle()?.view().cluster.leadership().map(|l| l.activation).unwrap_or_default();
    let service = t.node(1)?.handle()?.service();
    let request = Request { nonce: Nonce::new(9), since: *service.applied().borrow() };
    for wrong in [
        Command::ExpireSession { session, under, waited: TIMEOUT },
        Command::LiftDelay { name: vm(), token: Revision::new(1), under, waited: TIMEOUT },
        Command::Lock { request, name: vm(), holder: who.into(), wait: true },
        Command::Unlock { name: vm(), holder: who.into(), token: Revision::new(1) },
        Command::DeclareProcessBound { who },
        Command::Inherit { who, former: who },
    ] {
        let said = format!("{wrong:?}");
        let answer = service.command(wrong).await;
        ensure!(matches!(answer, Err(quorate_raft_core::ProposeError::Refused(_))), "{said}: {answer:?}");
    }
    Ok(())
}
