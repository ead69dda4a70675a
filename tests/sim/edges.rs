//! Every way to cut the directed links between three, four and five nodes that leaves a majority connected through one
//! member: a leader has to be there within a bound, commits go on, and nobody is fenced whom the leader can reach.
//!
//! ```text
//!   n1 ──▶ n2        a set of links that still work; two sets are one case if renaming the nodes makes them the same,
//!   n1 ◀── n3        with whoever leads at the cut kept apart (for five nodes: not kept apart)
//! ```

#![expect(clippy::expect_used, reason = "a test says by panicking what is wrong")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use quorate::testing::sim::{Durable, Observation, Running, Setting, TraceEntry, World};
use quorate::{Config, Event, Key, NodeId, Profile, lease::Stop, records::Value};
use quorate_raft_core::rpc::Position;
use tokio::time::Instant;

use crate::plan::Plan;
use crate::story::Story;

/// The links of a case: bit `from * n + to`.
pub(crate) type Links = u32;

fn has(links: Links, n: u32, from: u32, to: u32) -> bool {
    links & (1 << (from * n + to)) != 0
}

/// Who is connected both ways to a majority, itself counted.
fn hubs(links: Links, n: u32) -> Vec<u32> {
    let both = |a, b| a == b || (has(links, n, a, b) && has(links, n, b, a));
    (0..n).filter(|hub| (0..n).filter(|other| both(*hub, *other)).count() as u32 * 2 > n).collect()
}

fn permutations(n: u32, fixed: u32) -> Vec<Vec<u32>> {
    let mut all = vec![vec![]];
    for place in 0..n {
        let mut longer = vec![];
        for head in &all {
            for next in (0..n).filter(|next| !head.contains(next)) {
                if place < fixed && next != place {
                    continue;
                }
                longer.push(head.iter().copied().chain([next]).collect::<Vec<u32>>());
            }
        }
        all = longer;
    }
    all
}

/// One of each case, the first `fixed` nodes kept apart from the others.
pub(crate) fn cases(n: u32, fixed: u32) -> Vec<Links> {
    let pairs: Vec<(u32, u32)> = (0..n).flat_map(|a| (0..n).filter(move |b| a != *b).map(move |b| (a, b))).collect();
    let renamings = permutations(n, fixed);
    let mut seen = vec![0u64; (1usize << pairs.len()).div_ceil(64)];
    let mut found = vec![];
    for subset in 0u32..1 << pairs.len() {
        if seen[subset as usize / 64] & (1 << (subset % 64)) != 0 {
            continue;
        }
        for renaming in &renamings {
            let mut other = 0u32;
            for (bit, (a, b)) in pairs.iter().enumerate() {
                if subset & (1 << bit) != 0 {
                    let (x, y) = (renaming[*a as usize], renaming[*b as usize]);
                    let place = x * (n - 1) + if y > x { y - 1 } else { y };
                    other |= 1 << place;
                }
            }
            seen[other as usize / 64] |= 1 << (other % 64);
        }
        let links = pairs.iter().enumerate().filter(|(bit, _)| subset & (1 << bit) != 0);
        found.push(links.fold(0, |links, (_, (a, b))| links | 1 << (a * n + b)));
    }
    found.retain(|links| !hubs(*links, n).is_empty());
    found
}

/// What came of the cases that were tried.
#[derive(Default)]
pub(crate) struct Edges {
    pub(crate) cases: u64,
    /// From the cut until a write of a connected member was committed.
    pub(crate) waits: Vec<Duration>,
    pub(crate) fenced: u64,
    /// Where no Raft could have elected anybody.
    pub(crate) stuck: u64,
    /// The last entry on each disk.
    last: BTreeMap<NodeId, Position>,
    /// How far the log was looked at: a process that begins anew applies it all again.
    judged: u64,
}

impl Edges {
    fn note(&mut self, entry: &TraceEntry) {
        let last = match &entry.seen {
            Observation::Durable(Durable::Entries(entries)) => entries.last().map(|entry| entry.at),
            Observation::Opened { last, .. } => *last,
            _ => None,
        };
        self.last.extend(last.map(|last| (entry.node, last)));
    }
}

/// Tries every case in one world, one after the other.
pub(crate) async fn try_all(n: u32, cases: &[Links], seed: u64) -> Result<Edges, String> {
    let mut plan = Plan::draw(seed);
    let stop = Some(Stop::Deadman { lateness: Duration::from_millis(250) });
    let config =
        Config { timing: Profile::Standard.timing(), propose_timeout: Duration::from_secs(5), ..Config::default() };
    plan = Plan { nodes: u64::from(n), config, stop, device: false, kinds: vec![], locks: 1, ..plan };
    let setting =
        Setting { seed, config: plan.config.clone(), stop, device: false, aloud: std::env::var_os("ALOUD").is_some() };
    let mut story = Story::new(World::new(setting), plan);
    story.form().await?;
    story.keep = true;
    let mut edges = Edges::default();
    for links in cases {
        one(&mut story, n, *links, &mut edges)
            .await
            .map_err(|why| format!("{} of {n} nodes: {why}", drawn(*links, n)))?;
    }
    Ok(edges)
}

fn drawn(links: Links, n: u32) -> String {
    let arrows = (0..n)
        .flat_map(|a| (0..n).filter(move |b| has(links, n, a, *b)).map(move |b| format!("n{}>n{}", a + 1, b + 1)));
    format!("links {}", arrows.collect::<Vec<_>>().join(" "))
}

/// How long the connected majority may take to commit again. Mostly it takes one election; where a leader that nobody
/// answers is still heard by a voter whose vote is needed, chance decides how many (see the table in the manual).
pub(crate) fn bound(config: &Config) -> Duration {
    config.election_max() * 25
}

async fn one(story: &mut Story, n: u32, links: Links, edges: &mut Edges) -> Result<(), String> {
    // Node 1 of the case is whoever leads now.
    let leader = story.world.running().find_map(|running| running.node.view().local.leader);
    let leader = leader.map_or(1, NodeId::get) as u32 - 1;
    let real = |node: u32| NodeId::new(u64::from((node + leader) % n) + 1);
    for a in 0..n {
        for b in (0..n).filter(|b| *b != a) {
            if !has(links, n, a, b) {
                story.world.net.cut_one_way(real(a), real(b));
            }
        }
    }
    let cut = Instant::now();
    story.world.say(format!("cut: {} with {} in the place of n1", drawn(links, n), real(0)));
    let connected: BTreeSet<NodeId> = hubs(links, n).into_iter().map(real).collect();
    let reach = |a: NodeId, b: NodeId, world: &World| !world.net.is_cut(a, b) && !world.net.is_cut(b, a);
    let mut done = None;
    while done.is_none() {
        if cut.elapsed() > bound(&story.plan.config) {
            if connected.iter().all(|hub| !electable(story, edges, *hub)) {
                edges.stuck += 1;
                break;
            }
            return Err(format!("violated: nobody of {connected:?} could commit within {:?}", cut.elapsed()));
        }
        done = write(story, &connected).await?.then(|| cut.elapsed());
        judge(story, &reach, edges)?;
    }
    edges.waits.extend(done);
    // And it stays so.
    for _ in 0..if done.is_some() { 4 } else { 0 } {
        story.run_for(Duration::from_millis(1000)).await?;
        judge(story, &reach, edges)?;
    }
    if done.is_some() && !write(story, &connected).await? && !write(story, &connected).await? {
        return Err(format!("violated: commits of {connected:?} do not go on"));
    }
    edges.cases += 1;
    story.heal().await?;
    for entry in std::mem::take(&mut story.kept) {
        edges.note(&entry);
        if let Observation::Applied { at, .. } = entry.seen {
            edges.judged = edges.judged.max(at.index);
        }
    }
    Ok(())
}

/// Whether Raft could elect it: a majority that it is connected to both ways has logs no longer than its own. Where the only
/// connected member lacks an entry that a voter it needs has taken from a leader that nobody answers, no Raft elects anybody
/// (Ongaro 2014, section 3.6.1): that entry may be committed.
fn electable(story: &Story, edges: &Edges, hub: NodeId) -> bool {
    let cut = |a, b| story.world.net.is_cut(a, b);
    let last = |node: &NodeId| edges.last.get(node).copied();
    let nodes = story.world.nodes();
    let with = nodes.iter().filter(|node| !cut(hub, **node) && !cut(**node, hub) && last(node) <= last(&hub));
    with.count() * 2 > nodes.len()
}

/// Whether any of the connected members commits a write within a second or so.
async fn write(story: &mut Story, connected: &BTreeSet<NodeId>) -> Result<bool, String> {
    let running: Vec<Running> = story.world.running().filter(|r| connected.contains(&r.host.node())).cloned().collect();
    let tasks: Vec<_> = running
        .into_iter()
        .map(|Running { host, node }| {
            host.spawn(async move {
                let Ok(key) = Key::new("edge") else { return false };
                let write = node.records().write().put(key, Value::new(*b"here")).within(Duration::from_millis(900));
                write.commit().await.is_ok()
            })
        })
        .collect();
    story.run_for(Duration::from_millis(1000)).await?;
    let mut done = false;
    for task in tasks {
        done |= task.is_finished() && task.await.unwrap_or(false);
    }
    Ok(done)
}

/// Nobody is ordered to be fenced whom the leader that asked for it can reach.
fn judge(story: &mut Story, reach: &impl Fn(NodeId, NodeId, &World) -> bool, edges: &mut Edges) -> Result<(), String> {
    for entry in std::mem::take(&mut story.kept) {
        edges.note(&entry);
        let Observation::Applied { at, answer: Ok(events), state, .. } = &entry.seen else { continue };
        if at.index <= edges.judged {
            continue;
        }
        edges.judged = at.index;
        for event in events {
            let Event::FenceOrdered { target, .. } = event else { continue };
            edges.fenced += 1;
            let leader = state.leadership().map(|leadership| leadership.leader);
            // The former life of a process that has come back is ended in any case.
            let newest = state.newest(target.node) == Some(*target);
            if let Some(leader) = leader.filter(|leader| newest && reach(*leader, target.node, &story.world)) {
                return Err(format!("violated: {leader} reaches {target} and has it fenced: {event}"));
            }
        }
    }
    Ok(())
}

/// The cases of edge cuts between so many nodes, every `stride`th of them, in `parts` processes at once.
pub(crate) fn sweep(n: u32, fixed: u32, stride: u32, parts: u32) {
    let began = std::time::Instant::now();
    let part = |part: u32| {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args(["--exact", "some_edges", "--ignored", "--nocapture", "--test-threads=1"]);
        let of = [("NODES", n), ("FIXED", fixed), ("PART", part * stride), ("OF", stride * parts)];
        let output = command.envs(of.map(|(name, value)| (name, value.to_string()))).output().expect("it runs again");
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        let settings = of.map(|(name, value)| format!("{name}={value}")).join(" ");
        assert!(
            output.status.success(),
            "{text}\nagain:\n  {settings} cargo test --release --test sim -- --exact some_edges --ignored --nocapture"
        );
        text
    };
    let told: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..parts).map(|number| scope.spawn(move || part(number))).collect();
        running
            .into_iter()
            .map(|running| running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let (mut cases, mut stuck, mut fenced, mut waits) = (0, 0, 0, vec![]);
    for line in told.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("edges ")) {
        let mut words = line.splitn(4, ' ');
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        (cases, stuck, fenced) = (cases + number(), stuck + number(), fenced + number());
        let list = words.next().unwrap_or_default().trim_matches(['[', ']']).split(", ");
        waits.extend(list.filter_map(|ms| ms.parse::<u64>().ok()));
    }
    waits.sort_unstable();
    let at = |percent: usize| waits.get(waits.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0);
    assert!(cases > 0, "no case was tried: {told:?}");
    println!(
        "{n} nodes: {cases} cuts, commits again after {} ms (half), {} ms (worst); {stuck} in which no Raft \
         could elect; {fenced} fenced, out of reach; {:.1} s",
        at(50),
        at(100),
        began.elapsed().as_secs_f64()
    );
}
