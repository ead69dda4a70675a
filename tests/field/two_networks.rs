//! The rows with two networks between the hosts, and those on which large packets vanish.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::site::Site;

/// For how long each cut lasts.
fn seconds() -> Result<u64> {
    std::env::var("CUT").ok().map_or(Ok(5), |text| text.parse()).context("CUT")
}

/// What is done to the networks.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Nothing,
    Network(u64),
    /// Two hosts in one network, and two others in the other one.
    Pairs,
    /// From the first host to the second in a network.
    OneWay(u64, u64, u64),
    /// Large packets in a network.
    Large(u64),
}

impl Cut {
    fn make(self, site: &mut Site, cut: bool) -> Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Network(network) => site.net.darken_in(network, cut),
            Self::Pairs => [(0, 1, 2), (0, 2, 1), (1, 2, 3), (1, 3, 2)]
                .into_iter()
                .try_for_each(|(network, from, to)| site.net.cut_in(network, from, to, cut)),
            Self::OneWay(network, from, to) => site.net.cut_in(network, from, to, cut),
            Self::Large(network) => (1..=3).try_for_each(|host| site.net.lose_large(network, host, cut)),
        }
    }
}

/// Waits until what a node says of its links is as wanted. Returns how long that took.
fn links(site: &mut Site, node: u64, wanted: impl Fn(&str) -> bool) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let (said, _) = site.node(node)?.ask("links")?;
        if wanted(&said) {
            return Ok(began.elapsed());
        }
        if began.elapsed() > Duration::from_secs(60) {
            bail!("n{node} says of its links: {said}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn all_up(site: &mut Site) -> Result<()> {
    (1..=3).try_for_each(|node| links(site, node, |said| said.matches(" Up").count() == 4).map(drop))
}

/// Small writes at every node for a while. Returns how many were done, and the longest time between two of one node.
fn work(site: &mut Site, seconds: u64) -> Result<(u64, f64)> {
    for node in 1..=3 {
        site.node(node)?.order(&format!("paced {seconds}"))?;
    }
    let (mut all, mut longest) = (0, 0.0_f64);
    for node in 1..=3 {
        let said = site.node(node)?.answer()?;
        let words: Vec<&str> = said.split(' ').collect();
        let [done, "done", failed, "failed,", .., gap, "s"] = words[..] else { bail!("n{node}: {said}") };
        ensure!(failed == "0", "n{node}: {said}");
        (all, longest) = (all + done.parse::<u64>()?, longest.max(gap.parse()?));
    }
    Ok((all, longest))
}

/// 20: three hosts with two networks. Whatever is cut in one of them, nobody is elected, no lease lapses and no write fails.
pub(crate) fn two_networks() -> Result<()> {
    let mut site = Site::empty_on(3, 2)?.with_three()?;
    all_up(&mut site)?;
    let leader = site.leader()?;
    let follower = leader % 3 + 1;
    let (before, counts) = (site.node(follower)?.ask("who")?.0, site.counts());
    let cuts = [
        ("nothing cut", Cut::Nothing),
        ("the first network cut", Cut::Network(0)),
        ("the second network cut", Cut::Network(1)),
        ("a pair cut in each network", Cut::Pairs),
        ("from the leader to a follower", Cut::OneWay(0, leader, follower)),
        ("from a follower to the leader", Cut::OneWay(0, follower, leader)),
        ("large packets lost in the first network", Cut::Large(0)),
    ];
    let asked = std::env::var("CUTS").unwrap_or_else(|_| "0 1 2 3 4 5 6".into());
    let asked = asked.split_whitespace().map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    for (what, cut) in asked.into_iter().filter_map(|at| cuts.get(at)) {
        let ledgers = site.ledgers();
        let began = Instant::now();
        cut.make(&mut site, true)?;
        let (done, gap) = work(&mut site, seconds()?)?;
        let lease = site.lease_gap_after(&ledgers);
        println!("{what}: {done} writes, longest between two {gap:.2} s, between two renewals {lease:.2} s");
        cut.make(&mut site, false)?;
        ensure!(site.counts() == counts, "{what}: a lease was lost within {:.1?}: {}", began.elapsed(), site.tell());
        let after = site.node(follower)?.ask("who")?.0;
        ensure!(after == before, "{what}: {after}, and before {before}");
        all_up(&mut site)?;
    }
    Ok(())
}

/// 21: how soon a lost link shows, and that the preferred one is taken again when it was steady.
pub(crate) fn lost_links_show() -> Result<()> {
    let mut site = Site::empty_on(3, 2)?.with_three()?;
    all_up(&mut site)?;
    let of_first = |said: &str, state: &str| said.matches(&format!("10.77.0.2:7400 {state}")).count() == 1;
    site.net.darken_in(0, true)?;
    let down = links(&mut site, 1, |said| of_first(said, "Down") && said.contains("10.78.0.2:7400 Up used"))?;
    site.net.darken_in(0, false)?;
    let up = links(&mut site, 1, |said| of_first(said, "Up"))?;
    let again = links(&mut site, 1, |said| of_first(said, "Up used"))?;
    site.net.lose_large(0, 1, true)?;
    let large = links(&mut site, 1, |said| of_first(said, "SmallOnly") && said.contains("10.78.0.2:7400 Up used"))?;
    println!(
        "a link is down after {down:.2?}, up again {up:.2?} after it was mended, and used again {again:.2?} later"
    );
    println!("that large packets are lost shows after {large:.2?}");
    ensure!(down < Duration::from_secs(3) && large < Duration::from_secs(20), "too late");
    Ok(())
}

/// 22: the best link of a joiner is cut while its snapshot is under way.
pub(crate) fn cut_under_a_snapshot() -> Result<()> {
    let mut site = Site::empty_on(4, 2)?.with_three()?;
    let (leader, counts) = (site.leader()?, site.counts());
    let seed = site.net.address(1);
    site.node(leader)?.must("fill 224 65536")?;
    // So that the log does not reach back to the beginning.
    site.node(leader)?.must("fill 224 65536")?;
    let rate = std::env::var("JOINER").unwrap_or_else(|_| "10mbit".into());
    site.net.thin_both(4, &rate)?;
    let began = Instant::now();
    site.begin(4, &seed)?;
    site.node(leader)?.order("small 15")?;
    // A part of 14 MB.
    while site.received(4)? < 3_000_000 {
        ensure!(began.elapsed() < Duration::from_secs(120), "no snapshot is sent");
        std::thread::sleep(Duration::from_millis(20));
    }
    let part = began.elapsed();
    site.net.pull_in(0, 4, true)?;
    let said = site.node(4)?.answer()?;
    ensure!(said.starts_with("in "), "{said}");
    site.node(4)?.must("active")?;
    let told = site.node(leader)?.answer()?;
    println!("cut after {part:.1?}, active after {:.1?} over the other network; meanwhile {told}", began.elapsed());
    let [notices, lapses, _] = site.counts();
    ensure!([notices, lapses] == counts[..2] && told.contains(" 0 failed"), "{}", site.tell());
    Ok(())
}

/// 23: both networks of one host are cut: its lease lapses, and it is fenced. Once by a fencer, and once by time alone, as its fencer
/// reaches nothing.
pub(crate) fn both_cut() -> Result<()> {
    for fencer in ["ends processes", "fails"] {
        let mut site = Site::empty_on(3, 2)?.fenced_by(fencer).with_three()?;
        let leader = site.leader()?;
        for (host, whose) in [(leader % 3 + 1, "a follower"), (leader, "the leader")] {
            let other = (1..=3).find(|other| *other != host && *other != leader % 3 + 1).unwrap_or(leader % 3 + 1);
            let (life, _) = site.node(host)?.ask("life")?;
            let before = [" notice", " lapsed"].map(|what| site.noted(host, what));
            let began = Instant::now();
            (0..2).try_for_each(|network| site.net.pull_in(network, host, true))?;
            while site.node(other)?.ask(&format!("ended {life}"))?.0 != "true" {
                ensure!(began.elapsed() < Duration::from_secs(60), "{life} is not fenced");
                std::thread::sleep(Duration::from_millis(20));
            }
            let ended = began.elapsed();
            let after = [" notice", " lapsed"].map(|what| site.noted(host, what));
            println!(
                "both networks of {whose} cut, fencer {fencer}: {life} has ended after {ended:.2?}; notices and lapses that it \
                 noted itself: {before:?} before, {after:?} after"
            );
            ensure!(fencer != "fails" || after[1] > before[1], "its lease did not lapse before its end was proved");
            site.node(other)?.must("write 1 100")?;
            (0..2).try_for_each(|network| site.net.pull_in(network, host, false))?;
            site.nodes.remove(&host);
            site.start(host, "resume")?;
            site.node(host)?.must("active")?;
        }
    }
    Ok(())
}

/// 24: on the only network, large packets of the leader vanish: it makes way, and what is large is written again.
pub(crate) fn large_packets_lost() -> Result<()> {
    let mut site = Site::three()?;
    let (former, counts) = (site.leader()?, site.counts());
    let other = former % 3 + 1;
    // Its links have been found to carry large packets before.
    links(&mut site, former, |said| said.matches(" Up").count() == 2)?;
    site.net.lose_large(0, former, true)?;
    let began = Instant::now();
    site.node(other)?.order("write 15 65536")?;
    while site.leader_seen_by(other)? == former {
        ensure!(began.elapsed() < Duration::from_secs(40), "n{former} leads on, and its large packets are lost");
        std::thread::sleep(Duration::from_millis(20));
    }
    let _first = site.node(other)?.answer();
    let elected = began.elapsed();
    site.node(other)?.must("write 15 65536")?;
    let written = began.elapsed();
    std::thread::sleep(Duration::from_secs(6));
    let leads = site.leader_seen_by(other)?;
    println!(
        "n{leads} leads in place of n{former} after {elected:.1?}, a large write is done after {written:.1?}; {}",
        site.tell()
    );
    site.net.lose_large(0, former, false)?;
    let [notices, lapses, _] = site.counts();
    ensure!(leads != former && [notices, lapses] == counts[..2], "the lead went back, or a lease was lost");
    Ok(())
}
