//! The front door over real sockets: three nodes in one process, gRPC on loopback, durable logs.

use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use quorate::{
    Cluster, Config, Event, EventsError, Evidence, FenceRequest, Identity, Key, NodeId, Operator, Profile,
    ProposeError, Revision, Role, StartError,
    fencing::FenceProof,
    records::Value,
    state::{Phase, Rejection},
};

/// A liveness limit for what must come; a busy machine does not reach it.
const LIMIT: Duration = Duration::from_secs(60);

type Asked = Arc<Mutex<Vec<FenceRequest>>>;

fn describe(node: u64, folder: &Path, asked: &Asked) -> Result<quorate::builder::Ready> {
    let asked = asked.clone();
    let described = Cluster::builder(NodeId::new(node))
        .data(folder.join(format!("n{node}")))
        .listen_plaintext("127.0.0.1:0".parse()?)
        .fencing(move |request: FenceRequest| {
            let seen = format!("the test holds {} to be off", request.target);
            if let Ok(mut asked) = asked.lock() {
                asked.push(request);
            }
            async move { Ok(Evidence::new(seen)?) }
        })
        .timeout(LIMIT);
    Ok(described)
}

fn address(cluster: &Cluster) -> Result<String> {
    Ok(cluster.local_addr().context("it listens")?.to_string())
}

/// Three nodes that are active, and the fence requests of all of them.
async fn three(folder: &Path) -> Result<(Vec<Cluster>, Asked)> {
    let asked = Asked::default();
    let mut nodes = vec![describe(1, folder, &asked)?.bootstrap().await?];
    for node in 2..=3 {
        let seed = address(&nodes[0])?;
        nodes.push(describe(node, folder, &asked)?.join([seed]).await?);
    }
    for cluster in &nodes {
        tokio::time::timeout(LIMIT, cluster.active()).await??;
    }
    // A follower hears of the last of it a moment later.
    let everywhere = || nodes.iter().all(|cluster| cluster.view().cluster.active().count() == nodes.len());
    let all_know = async {
        while !everywhere() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, all_know).await?;
    Ok((nodes, asked))
}

async fn until(cluster: &Cluster, what: impl Fn(&Event) -> bool) -> Result<Event> {
    let mut events = cluster.events_since(Revision::default());
    let found = async {
        loop {
            match events.next().await {
                Ok(event) if what(&event) => return Ok(event),
                Ok(_) => {}
                Err(error) => bail!(error),
            }
        }
    };
    tokio::time::timeout(LIMIT, found).await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_without_a_word_is_fenced_and_comes_back_at_another_address() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut nodes, asked) = three(folder.path()).await?;
    let lost = nodes.remove(2);
    let (who, old) = (lost.identity(), address(&lost)?);
    lost.shutdown().await;
    for cluster in &nodes {
        let event = until(cluster, |e| matches!(e, Event::Fenced { who: w, .. } if *w == who)).await?;
        let Event::Fenced { proof, token, .. } = event else { bail!("{event}") };
        assert!(matches!(proof, FenceProof::Device { .. }), "{proof}");
        assert!(token > Revision::default());
    }
    let requests = asked.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.clone();
    assert!(requests.iter().all(|r| r.target == who), "{requests:#?}");
    let held = TcpListener::bind(&old)?; // its old port is taken: the others know it at an address that is wrong now
    let back = describe(3, folder.path(), &asked)?.resume().await?;
    assert_eq!(back.identity().to_string(), "n3#2");
    tokio::time::timeout(LIMIT, back.active()).await??;
    drop(held);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_promoted_re_addressed_removed_and_replaced_through_any_node() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut nodes, asked) = three(folder.path()).await?;
    let seeds = [address(&nodes[0])?, address(&nodes[1])?];
    let fourth = describe(4, folder.path(), &asked)?.role(Role::Learner).join(seeds).await?;
    tokio::time::timeout(LIMIT, fourth.active()).await??;
    nodes[1].promote(NodeId::new(4)).await?;
    let mut watch = nodes[0].watch();
    let votes = watch.until(|v| v.cluster.configuration().is_lasting_voter(NodeId::new(4)));
    tokio::time::timeout(LIMIT, votes).await?.context("n1 runs")?;
    let third = nodes.remove(2);
    third.leave().await?;
    fourth.remove(NodeId::new(3)).await?;
    let out = watch.until(|v| !v.cluster.configuration().contains(NodeId::new(3)));
    tokio::time::timeout(LIMIT, out).await?.context("n1 runs")?;
    assert!(asked.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.is_empty(), "nobody was shot");
    nodes[0].read_barrier(LIMIT).await?;
    assert_eq!(nodes[0].view().cluster.failure_tolerance(), Some(1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_and_events_are_resumed_where_they_were_left() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (nodes, _asked) = three(folder.path()).await?;
    let leader = nodes[0].view().local.leader.context("a leader is known")?;
    let (from, to) = (leader.get() as usize - 1, leader.get() % 3 + 1);
    assert_eq!(nodes[from].hand_over(Some(NodeId::new(to))).await?, NodeId::new(to));
    let mut events = nodes[1].events_since(Revision::default());
    let mut seen = vec![];
    while seen.len() < 3 {
        seen.push((events.next().await?, events.revision()));
    }
    let mut resumed = nodes[2].events_since(seen[0].1);
    let same = seen.iter().filter(|(_, at)| *at > seen[0].1);
    for (event, at) in same {
        assert_eq!(resumed.next().await?, *event);
        assert_eq!(resumed.revision(), *at);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_word_of_an_operator_ends_a_life_where_nothing_can_fence() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let start = || {
        let node = Cluster::builder(NodeId::new(1)).data(folder.path());
        Ok::<_, anyhow::Error>(node.listen_plaintext("127.0.0.1:0".parse()?).without_fencing().timeout(LIMIT))
    };
    let alone = start()?.bootstrap().await?;
    tokio::time::timeout(LIMIT, alone.active()).await??;
    let first = alone.identity();
    alone.shutdown().await;
    let again = start()?.resume().await?;
    assert_eq!(again.view().cluster.life(again.identity()).map(|life| life.phase), Some(Phase::Joining));
    let operator = Operator::new("ada", "its process has ended, I looked")?;
    again.dangerous().vouch(first, operator).await?;
    tokio::time::timeout(LIMIT, again.active()).await??;
    again.leave().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_named_with_its_remedy_and_loses_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let asked = Asked::default();
    let wildcard =
        Cluster::builder(NodeId::new(1)).data(folder.path().join("w")).listen_plaintext("0.0.0.0:0".parse()?);
    let error = said(wildcard.without_fencing().plaintext_beyond_loopback().bootstrap().await)?;
    assert!(error.contains("cannot reach a wildcard") && error.contains("advertise"), "{error}");
    let open = Cluster::builder(NodeId::new(1)).data(folder.path().join("p")).listen_plaintext("0.0.0.0:0".parse()?);
    let error = said(open.without_fencing().advertise(["127.0.0.1:7400"]).bootstrap().await)?;
    assert!(error.contains("0.0.0.0:0") && error.contains("plaintext_beyond_loopback"), "{error}");
    let zero = said(describe(0, folder.path(), &asked)?.bootstrap().await)?;
    assert!(zero.contains("n0") && zero.contains("numbered from 1"), "{zero}");
    let config = Config { suspect_after: Some(Duration::from_millis(1)), ..Config::default() };
    let impatient = said(describe(1, folder.path(), &asked)?.config(config).bootstrap().await)?;
    assert!(impatient.contains("suspect_after is 1ms"), "{impatient}");
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let busy = Cluster::builder(NodeId::new(1)).data(folder.path().join("b")).listen_plaintext(taken.local_addr()?);
    let error = said(busy.without_fencing().bootstrap().await)?;
    assert!(error.contains("cannot listen on 127.0.0.1:"), "{error}");
    drop(taken);
    let nobody = describe(2, folder.path(), &asked)?.timeout(Duration::from_millis(300)).join(["127.0.0.1:1"]).await;
    let error = said(nobody)?;
    assert!(error.contains("127.0.0.1:1"), "{error}");
    for bad in ["127.0.0.1", "not an address", ":7400", "host:0"] {
        let error = said(describe(2, folder.path(), &asked)?.join([bad]).await)?;
        assert!(error.contains(bad) && error.contains("a host and a port"), "{error}");
    }
    let mistyped = folder.path().join("no-such-folder");
    let nowhere = Cluster::builder(NodeId::new(5)).data(&mistyped).listen_plaintext("127.0.0.1:0".parse()?);
    assert!(matches!(nowhere.without_fencing().resume().await.err(), Some(StartError::Vacant(_))));
    assert!(!mistyped.exists(), "a mistyped folder is not made");
    // The folder of the node that nobody let in is still free to join with.
    let first = describe(1, folder.path(), &asked)?.bootstrap().await?;
    let second = describe(2, folder.path(), &asked)?.join([address(&first)?]).await?;
    assert_eq!(second.identity().to_string(), "n2#1");
    let twice = describe(2, folder.path(), &asked)?.resume().await;
    assert!(matches!(twice.err(), Some(StartError::InUse(_))));
    Ok(())
}

/// The failure detector follows the profile, so that a profile needs no other setting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_alone_is_enough_to_start() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let patient = describe(1, folder.path(), &Asked::default())?.timing(Profile::Patient).bootstrap().await?;
    tokio::time::timeout(LIMIT, patient.active()).await??;
    patient.leave().await?;
    Ok(())
}

/// A reader that was with another cluster, or is mistaken, is told; one that is only ahead of a follower is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_does_not_exist_yet_is_refused_with_the_newest() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (nodes, _) = three(folder.path()).await?;
    for cluster in &nodes {
        let newest = cluster.read_barrier(LIMIT).await?;
        for after in [newest.get() + 10, 1_000_000_000].map(Revision::new) {
            let mut events = cluster.events_since(after);
            match tokio::time::timeout(LIMIT, events.next()).await? {
                Err(EventsError::Ahead { after: named, newest: told }) => {
                    assert!(named == after && told >= newest && told < after, "{named} {told}");
                }
                other => bail!("{other:?} after {after}"),
            }
            assert_eq!(events.next().await, Err(EventsError::Stopped), "nothing follows");
        }
    }
    // Whoever has just heard of a revision may read on at any node, however far that one is.
    for round in 0..20 {
        let written = nodes[0].records().put("key", round.to_string()).await?;
        let mut events = nodes[2].events_since(written);
        nodes[0].records().put("key", "next").await?;
        let next = tokio::time::timeout(LIMIT, events.next()).await?;
        assert!(next.is_ok() && events.revision() > written, "{next:?}");
    }
    Ok(())
}

fn said(refused: Result<Cluster, StartError>) -> Result<String> {
    match refused {
        Ok(cluster) => bail!("{} was started", cluster.identity()),
        Err(error) => {
            let text = error.to_string();
            // What a chain of causes is printed with says nothing twice.
            let chain = format!("{:#}", anyhow::Error::from(error));
            anyhow::ensure!(chain == text, "{chain}");
            Ok(text)
        }
    }
}

/// A start that is given up is dropped with its node. The next one waits until the folder is closed, and finds the port free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_was_given_up_leaves_its_folder_and_its_port() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    for _ in 0..3 {
        let ready = || Cluster::builder(NodeId::new(2)).data(folder.path()).listen_plaintext(listen).without_fencing();
        // Nobody listens there.
        let joining = ready().join(["127.0.0.1:1"]);
        assert!(tokio::time::timeout(Duration::from_millis(300), joining).await.is_err());
        let refused = said(ready().timeout(Duration::from_millis(300)).join(["127.0.0.1:1"]).await)?;
        assert!(refused.contains("127.0.0.1:1"), "{refused}");
    }
    Ok(())
}

/// The others know it by a port that is wrong now, and in a cluster of two nothing is committed before they reach it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_comes_back_at_another_port_again_and_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let asked = Asked::default();
    let first = describe(1, folder.path(), &asked)?.bootstrap().await?;
    let mut second = describe(2, folder.path(), &asked)?.join([address(&first)?]).await?;
    tokio::time::timeout(LIMIT, second.active()).await??;
    for life in 2..8 {
        second.shutdown().await;
        second = describe(2, folder.path(), &asked)?.resume().await?;
        assert_eq!(second.identity().to_string(), format!("n2#{life}"));
    }
    Ok(())
}

/// All three moved while none was up. Without seeds the error says where the others were looked for; with them they find
/// each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_have_all_moved_find_each_other_by_seeds() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (nodes, _asked) = three(folder.path()).await?;
    let former: Vec<String> = nodes.iter().map(address).collect::<Result<_>>()?;
    // Ports that are free, and that none of them had: a node does not look for others at its own address.
    let free: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let ports: Vec<_> = free.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    for cluster in nodes {
        cluster.shutdown().await;
    }
    drop(free);
    let moved = |number: usize| {
        let ready = Cluster::builder(NodeId::new(number as u64)).data(folder.path().join(format!("n{number}")));
        ready.listen_plaintext(ports[number - 1]).without_fencing()
    };
    let error = said(moved(1).timeout(Duration::from_secs(4)).resume().await)?;
    assert!(former[1..].iter().all(|address| error.contains(address)), "{error}");
    assert!(error.contains("within 4s") && error.contains("as seeds"), "{error}");
    let mut starting = vec![];
    for number in 1..=3 {
        let seeds: Vec<String> = ports.iter().filter(|at| **at != ports[number - 1]).map(ToString::to_string).collect();
        starting.push(tokio::spawn(moved(number).timeout(LIMIT).resume_with(seeds)));
    }
    // All of them stay up until the last has come in.
    let mut nodes = vec![];
    for started in starting {
        nodes.push(started.await??);
    }
    let lives: Vec<String> = nodes.iter().map(|cluster| cluster.identity().to_string()).collect();
    assert_eq!(lives, ["n1#2", "n2#2", "n3#2"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_is_told_when_its_node_has_stopped() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = describe(1, folder.path(), &Asked::default())?.bootstrap().await?;
    let mut events = cluster.events();
    let _all: Identity = cluster.identity();
    cluster.shutdown().await;
    loop {
        match tokio::time::timeout(LIMIT, events.next()).await? {
            Ok(_) => {}
            Err(EventsError::Stopped) => return Ok(()),
            Err(other) => bail!(other),
        }
    }
}

/// Writes as large as may be, many at once: no batch of them is too large for the wire. What no message could carry is
/// refused before it is in the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_writes_at_once_are_committed_and_what_is_too_large_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (nodes, _asked) = three(folder.path()).await?;
    let key = |writer: usize, part: usize| Key::new(format!("large/{writer}/{part}"));
    let value = Value::new(vec![0x5a; 60_000]);
    let mut writes = tokio::task::JoinSet::new();
    for writer in 0..32 {
        let mut write = nodes[writer % 3].records().write().within(LIMIT);
        for part in 0..16 {
            // The same keys again and again: what is stored stays small.
            write = write.put(key(0, part)?, value.clone());
        }
        writes.spawn(write.commit());
    }
    while let Some(done) = writes.join_next().await {
        done??;
    }
    let huge = nodes[0].records().put(key(1, 1)?, vec![0; 20 << 20]).await;
    assert!(matches!(huge, Err(ProposeError::Refused(_))), "{huge:?}");
    let large = nodes[0].records().put(key(1, 1)?, vec![0; 70_000]).await;
    assert!(matches!(large, Err(ProposeError::Rejected(Rejection::ValueTooLarge { .. }))), "{large:?}");
    nodes[1].records().put(key(2, 0)?, "small").await?;
    Ok(())
}
