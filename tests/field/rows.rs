//! The rows: what was done on real hosts, what must happen, and the numbers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::port::Dropped;
use crate::site::Site;

fn sleep(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// 1: thin links. One large write, many at once, and small ones afterwards; no lease lapses, nobody else leads.
pub(crate) fn thin_links() -> Result<()> {
    let rates = std::env::var("RATES").unwrap_or_else(|_| "20mbit 5mbit 1mbit".into());
    for rate in rates.split_whitespace() {
        let mut site = Site::three()?;
        let leader = site.leader()?;
        (1..=3).try_for_each(|host| site.thin(host, rate))?;
        let (before, began) = (site.sent(leader)?, site.counts());
        let large = site.node(leader)?.must("write 15 65536")?;
        let after = site.node(leader)?.must("write 1 100")?;
        let parallel = site.node(leader)?.must("parallel 20 65536")?;
        let small = site.node(leader)?.must("write 1 100")?;
        let forwarded = site.node(leader % 3 + 1)?.must("write 15 65536")?;
        let sent = site.sent(leader)? - before;
        println!(
            "{rate}: 15 x 64 KiB {large:.2} s, then small {after:.2} s; 20 at once {parallel:.2} s, then small {small:.2} s; \
             15 x 64 KiB from a follower {forwarded:.2} s"
        );
        println!("{rate}: {:.1} MB sent by the leader; {}", sent as f64 / 1e6, site.tell());
        ensure!(site.counts() == began, "a lease or the lead was lost");
    }
    Ok(())
}

/// 2: what comes in at the leader's port is dropped, all of it or only new connections, while all that it sends passes.
pub(crate) fn closed_port() -> Result<()> {
    for dropped in [Dropped::All, Dropped::New] {
        let mut site = Site::three()?;
        let former = site.leader()?;
        let other = former % 3 + 1;
        let lost = |site: &Site| (1..=3).map(|n| site.noted(n, " notice") + site.noted(n, " lapsed")).sum::<usize>();
        let (before, inbound) = (lost(&site), site.net.inbound(former)?);
        site.net.close_port(former, dropped)?;
        let began = Instant::now();
        while site.leader_seen_by(other)? == former {
            ensure!(began.elapsed() < Duration::from_secs(20), "n{former} leads on, and nobody reaches it");
            sleep(10);
        }
        let elected = began.elapsed();
        site.node(other)?.must("write 1 100")?;
        let written = began.elapsed();
        // Long enough for a lease to run out, and for a second election.
        sleep(6000);
        let (leads, after) = (site.leader_seen_by(other)?, lost(&site));
        site.net.open_port(former)?;
        site.node(former)?.must("write 1 100")?;
        println!(
            "{dropped:?} of {inbound} connections dropped: n{leads} leads in place of n{former} after {:.2} s, a write after \
             {:.2} s; {}",
            elected.as_secs_f64(),
            written.as_secs_f64(),
            site.tell()
        );
        ensure!(leads != former && after == before, "the lead went back, or a lease was lost");
    }
    Ok(())
}

/// 3: large writes over the same keys. Memory and files stay within their bounds, and a restart is quick.
pub(crate) fn large_rewrites() -> Result<()> {
    let writes: u64 = std::env::var("WRITES").ok().map_or(Ok(400), |text| text.parse())?;
    let mut site = Site::three()?;
    let leader = site.leader()?;
    let (before, began, mut longest) = (site.memory(leader)?, Instant::now(), 0.0_f64);
    for _ in 0..writes {
        longest = longest.max(site.node(leader)?.must("write 15 65536")?);
    }
    let took = began.elapsed().as_secs_f64();
    let memory: Vec<u64> = (1..=3).map(|node| site.memory(node)).collect::<Result<_>>()?;
    let files: Vec<u64> = (1..=3).map(|node| site.log_size(node)).collect::<Result<_>>()?;
    let again = leader % 3 + 1;
    site.nodes.remove(&again);
    let said = site.start(again, "resume")?;
    println!("{writes} x 975 KB in {took:.1} s, the slowest {longest:.2} s; {}", site.tell());
    println!("RSS {memory:?} MB ({before} MB before), files {files:?} MB; n{again} started again: {said} s");
    // The bound of the log is 64 MiB; without it all of the writes would stay.
    let all = writes * 975 / 1000;
    ensure!(memory.iter().all(|mb| *mb < 300.min(all)), "the memory is not bounded");
    ensure!(files.iter().all(|mb| *mb < 300.min(all)), "the file is not bounded");
    Ok(())
}

/// 4: a leader that stops for 0.85 s and runs for 0.5 s, again and again, while another node is killed.
pub(crate) fn stuttering_leader() -> Result<()> {
    let mut site = Site::three()?;
    let stutters = site.leader()?;
    let dead = stutters % 3 + 1;
    let other = (1..=3).find(|node| *node != stutters && *node != dead).context("a third")?;
    let (began, activations) =
        (Instant::now(), site.noted(1, " activated") + site.noted(2, " activated") + site.noted(3, " activated"));
    site.nodes.remove(&dead);
    let mut fenced = None;
    while began.elapsed() < Duration::from_secs(25) || (fenced.is_none() && began.elapsed() < Duration::from_secs(40)) {
        site.node(stutters)?.signal(Signal::STOP)?;
        sleep(850);
        site.node(stutters)?.signal(Signal::CONT)?;
        sleep(500);
        if fenced.is_none() && site.node(other)?.ask(&format!("ended n{dead}#1"))?.0 == "true" {
            fenced = Some(began.elapsed());
        }
    }
    let after = site.noted(1, " activated") + site.noted(2, " activated") + site.noted(3, " activated");
    println!("n{dead} fenced after {fenced:.1?}; {} activations in {:.0?}", after - activations, began.elapsed());
    ensure!(fenced.is_some_and(|after| after < Duration::from_secs(20)), "the dead node is not fenced");
    Ok(())
}

/// 8: a client holds every connection that it gets; a node that was killed comes back all the same.
pub(crate) fn crowd_of_clients() -> Result<()> {
    let mut site = Site::three()?;
    let leader = site.leader()?;
    let victim = leader % 3 + 1;
    let third = (1..=3).find(|node| *node != leader && *node != victim).context("a third")?;
    let address = site.net.address(leader);
    let held = site.node(third)?.ask(&format!("crowd {address} 1500"))?.0;
    site.nodes.remove(&victim);
    sleep(2500);
    let came = site.start(victim, "resume")?;
    let active = site.node(victim)?.must("active")?;
    println!("with {held} connections held, n{victim} came back as {came} s, and was active {active:.2} s later");
    Ok(())
}

/// 9: a joiner behind 3 Mbit/s, where the records have 14 MB and small writes go on.
pub(crate) fn slow_joiner() -> Result<()> {
    let rate = std::env::var("JOINER").unwrap_or_else(|_| "3mbit".into());
    let mut site = Site::empty(4)?;
    site.start(1, "found")?;
    let seed = site.net.address(1);
    for node in 2..=3 {
        site.start(node, &seed)?;
    }
    for node in 1..=3 {
        site.node(node)?.must("active")?;
    }
    let leader = site.leader()?;
    site.node(leader)?.must("fill 224 65536")?;
    // So that the log does not reach back to the beginning.
    site.node(leader)?.must("fill 224 65536")?;
    site.net.thin_both(4, &rate)?;
    let began = Instant::now();
    site.begin(4, &seed)?;
    site.node(leader)?.order("small 20")?;
    let said = site.node(4)?.answer()?;
    ensure!(said.starts_with("in "), "{said}");
    site.node(4)?.must("active")?;
    let took = began.elapsed();
    println!("at {rate}: active after {:.1} s; meanwhile {}", took.as_secs_f64(), site.node(leader)?.answer()?);
    println!("{}", site.tell());
    Ok(())
}

/// 13: an idle process is stopped for so long that its life is over, and goes on: its next life begins in the same process. Where
/// idle nodes are spared, its life is not over.
pub(crate) fn pause() -> Result<()> {
    let mut site = Site::three_with("ends processes", true)?;
    let stopped = site.leader()? % 3 + 1;
    site.node(stopped)?.signal(Signal::STOP)?;
    sleep(6000);
    site.node(stopped)?.signal(Signal::CONT)?;
    site.node(stopped)?.must("lock work")?;
    let (life, _) = site.node(stopped)?.ask("life")?;
    println!("stopped for 6 s, idle and spared: {life} holds a lock again; {}", site.tell());
    ensure!(life == format!("n{stopped}#1"), "{life}");
    // Its network goes first.
    drop(site);
    let mut site = Site::three_with("fails", false)?;
    let stopped = site.leader()? % 3 + 1;
    site.node(stopped)?.order("renew")?;
    site.node(stopped)?.signal(Signal::STOP)?;
    sleep(6000);
    site.node(stopped)?.signal(Signal::CONT)?;
    let said = site.node(stopped)?.answer()?;
    println!("stopped for 6 s; in the same process {said}");
    ensure!(said.starts_with(&format!("n{stopped}#2 active")), "{said}");
    Ok(())
}

/// 15: the owner of a lock is killed and started again by its supervisor after 0.3 s; and once it stays away, which must not be
/// faster.
pub(crate) fn quick_restart() -> Result<()> {
    let (comes_back, stays_away) = (owner_killed(true)?, owner_killed(false)?);
    println!(
        "the next has the lock after {comes_back:.2?} of an owner that comes back, {stays_away:.2?} of one that stays away"
    );
    ensure!(comes_back < stays_away * 2, "whoever comes back is waited for");
    Ok(())
}

/// How long after the end of the owner the next has its lock.
fn owner_killed(back: bool) -> Result<Duration> {
    let mut site = Site::three()?;
    let leader = site.leader()?;
    let owner = leader % 3 + 1;
    let next = owner % 3 + 1;
    site.node(owner)?.must("lock work")?;
    site.node(next)?.order("lock work")?;
    sleep(300);
    let began = Instant::now();
    site.nodes.remove(&owner);
    sleep(300);
    if back {
        site.begin(owner, "resume")?;
    }
    ensure!(site.node(next)?.answer()? == "ok");
    Ok(began.elapsed())
}

/// 16: all are told to stop within two seconds; then all are started again.
pub(crate) fn whole_stop() -> Result<()> {
    let mut site = Site::three()?;
    for node in 1..=3 {
        site.node(node)?.must(&format!("lock w{node}"))?;
    }
    let began = Instant::now();
    for node in 1..=3 {
        site.node(node)?.order("leave")?;
        sleep(900);
    }
    for node in 1..=3 {
        let (said, well) = site.node(node)?.end()?;
        println!("n{node}: {said} after {:.2} s", began.elapsed().as_secs_f64());
        ensure!(well, "n{node} ended with an error");
    }
    site.nodes.clear();
    let began = Instant::now();
    (1..=3).try_for_each(|node| site.begin(node, "resume"))?;
    for node in 1..=3 {
        let said = site.node(node)?.answer()?;
        ensure!(said.starts_with(&format!("in n{node}#2")), "{said}");
        site.node(node)?.must("active")?;
    }
    println!("all active again after {:.2} s", began.elapsed().as_secs_f64());
    Ok(())
}
