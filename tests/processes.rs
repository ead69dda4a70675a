//! Three operating-system processes over gRPC, killed, stopped, blocked and cut off: the demo as a stranger runs it.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The timing of the tests that last for several leases: short enough to wait for, long enough for a busy disk.
const SHORT: &str = "3000ms";

/// The demo, built in the profile that this test is built in.
fn demo() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let profile = here.parent().and_then(|deps| deps.parent()).context("a profile folder")?;
    let program = profile.join("examples/three_nodes");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--example", "three_nodes"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    ensure!(build.status()?.success(), "the demo does not build");
    Ok(program)
}

/// State and parent of a process; `None` if there is none of that number.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Everybody who descends from `root` and is not dead, oldest first.
fn descendants(root: u32) -> Result<Vec<u32>> {
    let mut parents = vec![];
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Some((state, parent)) = stat(pid)
            && !matches!(state, 'Z' | 'X')
        {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.remove(0);
    Ok(found)
}

fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

fn start(arguments: &[&str]) -> Result<Child> {
    let demo = Command::new(demo()?).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    Ok(demo)
}

fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("a process")?;
    kill_process(pid, signal).context("sending a signal")
}

/// Waits until those who descend from the demo are as wanted.
fn wait_for(demo: &Child, what: &str, wanted: impl Fn(&[u32]) -> bool) -> Result<Vec<u32>> {
    let begun = Instant::now();
    loop {
        let found = descendants(demo.id())?;
        if wanted(&found) {
            return Ok(found);
        }
        ensure!(begun.elapsed() < Duration::from_secs(60), "{what}: not with {} processes", found.len());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait_for_descendants(demo: &Child, count: usize) -> Result<Vec<u32>> {
    wait_for(demo, "so many processes", |found| found.len() >= count)
}

/// The demo must have told the truth, and have left nobody behind.
fn judge(output: &Output, family: &[u32]) -> Result<ExitStatus> {
    let said = String::from_utf8_lossy(&output.stdout);
    let audits = |of: &str, clean: &str| {
        let mut lines = said.lines().filter(|line| line.starts_with(of)).peekable();
        lines.peek().is_some() && lines.all(|line| line.contains(clean))
    };
    ensure!(audits("ledger: ", "0 overlaps, 0 tokens went backwards"), "{said}");
    ensure!(audits("leases: ", "; 0 violations"), "{said}");
    ensure!(!said.contains("two owners"), "{said}");
    let begun = Instant::now();
    while let Some(left) = family.iter().find(|pid| alive(**pid)) {
        ensure!(begun.elapsed() < Duration::from_secs(20), "process {left} was left behind\n{said}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(output.status)
}

/// Plays the demo to its end, and gives what it has written for machines.
fn play(arguments: &[&str]) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("out.json");
    let output = start(&[arguments, &["--json", file.to_str().context("a path")?]].concat())?.wait_with_output()?;
    let status = judge(&output, &[])?;
    ensure!(status.code() == Some(0), "{status}\n{}", String::from_utf8_lossy(&output.stdout));
    let run: Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    for sum in ["overlaps", "tokens_backwards", "lease_violations"] {
        ensure!(run[sum].as_u64() == Some(0), "{sum}: {run:#}");
    }
    Ok(run)
}

fn rows<'a>(run: &'a Value, of: &str) -> Result<&'a Vec<Value>> {
    run[of].as_array().with_context(|| format!("{of} in {run:#}"))
}

fn number(row: &Value, key: &str) -> Result<f64> {
    row[key].as_f64().with_context(|| format!("{key} in {row:#}"))
}

/// What holds of every takeover, however busy the machine is.
fn sound(takeover: &Value) -> Result<()> {
    ensure!(takeover["from"] != takeover["to"], "{takeover:#}");
    ensure!(number(takeover, "gap_ms")? > 0.0, "{takeover:#}");
    ensure!(number(takeover, "running_ms")? >= number(takeover, "proved_ms")?, "{takeover:#}");
    ensure!(number(takeover, "proved_ms")? >= number(takeover, "detected_ms")?, "{takeover:#}");
    let (key, proof) = (takeover["key"].as_str(), takeover["proof"].as_str());
    let allowed: &[&str] = match key.context("a fault")? {
        "hand-over" => &["clean leave"],
        // Nobody but time was there to prove it.
        "freeze-alone" | "cut-alone" | "cut-leading-alone" | "block" | "spin" => &["expired"],
        // A device is quicker than time, unless it is kept waiting.
        _ => &["device", "expired"],
    };
    ensure!(proof.is_some_and(|proof| allowed.contains(&proof)), "{takeover:#}");
    Ok(())
}

#[test]
fn the_demo_plays_to_its_table_and_every_takeover_has_a_proof() -> Result<()> {
    let run = play(&[])?;
    let takeovers = rows(&run, "takeovers")?;
    let keys: Vec<_> = takeovers.iter().filter_map(|takeover| takeover["key"].as_str()).collect();
    let all =
        ["crash", "daemon", "hand-over", "freeze", "freeze-alone", "cut", "cut-alone", "cut-leading-alone", "both"];
    assert_eq!(keys, all, "{run:#}");
    takeovers.iter().try_for_each(sound)?;
    for takeover in takeovers {
        ensure!(number(takeover, "loss_ms")? < number(takeover, "running_ms")?, "{takeover:#}");
        ensure!(takeover["profile"] == "standard", "{takeover:#}");
        match takeover["key"].as_str() {
            // Bound to its daemon, the worker died with it, long before anybody noticed.
            Some("daemon") => ensure!(number(takeover, "last_line_ms")? < number(takeover, "detected_ms")?),
            // Stopped as it was, it was killed before its work was taken over.
            Some("freeze-alone") => ensure!(takeover["daemon_ended"] == true, "{takeover:#}"),
            _ => {}
        }
    }
    let kept = rows(&run, "kept")?;
    let keys: Vec<_> = kept.iter().filter_map(|kept| kept["key"].as_str()).collect();
    assert_eq!(keys, ["leader", "followers", "pair"], "{run:#}");
    ensure!(kept.iter().all(|kept| kept["owner"] != kept["fenced"]), "{run:#}");
    Ok(())
}

/// Not knowing is allowed, with a clear message; lying is not.
#[test]
fn killing_any_process_at_any_moment_from_outside_does_not_make_it_lie() -> Result<()> {
    for (victim, after) in [(0, 100), (1, 400), (2, 1200), (3, 250), (4, 700), (0, 2600), (4, 5000)] {
        let demo = start(&["--faults", "crash,daemon,hand-over,freeze-alone"])?;
        let family = wait_for_descendants(&demo, 3)?;
        std::thread::sleep(Duration::from_millis(after));
        let now = descendants(demo.id())?;
        let Some(chosen) = now.get(victim).or(now.last()) else { bail!("nobody is left to kill") };
        signal(*chosen, Signal::KILL)?;
        let output = demo.wait_with_output()?;
        let status = judge(&output, &[family, now].concat())?;
        let said = String::from_utf8_lossy(&output.stdout);
        match status.code() {
            // The victim had been given up by then, or was one whose end the demo itself brings about.
            Some(0) => {}
            Some(2) => assert!(said.contains("the story ended early: "), "{said}"),
            other => bail!("exit {other:?} after killing process {victim} at {after} ms\n{said}"),
        }
    }
    Ok(())
}

/// Whoever is of the demo's family must be gone soon after the demo itself.
fn nobody_stays(family: &[u32], how: Signal) -> Result<()> {
    let begun = Instant::now();
    while let Some(left) = family.iter().find(|pid| alive(**pid)) {
        ensure!(begun.elapsed() < Duration::from_secs(30), "{how:?} left process {left} behind: {:?}", stat(*left));
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn an_interrupt_leaves_no_process_behind() -> Result<()> {
    for how in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mut demo = start(&[])?;
        // Three daemons, a guardian and its worker.
        let family = wait_for_descendants(&demo, 5)?;
        signal(demo.id(), how)?;
        let status = demo.wait()?;
        assert!(!status.success(), "{status}");
        nobody_stays(&family, how)?;
    }
    Ok(())
}

/// Not even while some of them are stopped, and can neither hear nor do anything.
#[test]
fn an_interrupt_leaves_no_stopped_process_behind() -> Result<()> {
    for how in [Signal::INT, Signal::KILL] {
        let mut demo = start(&["--faults", "freeze-alone"])?;
        let stopped = |found: &[u32]| found.iter().any(|pid| stat(*pid).is_some_and(|(state, _)| state == 'T'));
        let family = wait_for(&demo, "one of them stopped", stopped)?;
        signal(demo.id(), how)?;
        let status = demo.wait()?;
        assert!(!status.success(), "{status}");
        nobody_stays(&family, how)?;
    }
    Ok(())
}

/// An owner that is stopped for less than its lease may keep the work; one that is stopped for longer is dead before it
/// could go on, and never are there two. No fencer reaches anybody meanwhile.
#[test]
fn an_owner_that_is_stopped_for_longer_than_its_lease_does_not_wake_up() -> Result<()> {
    let run = play(&["--profile", SHORT, "--faults", "pause=0.5,pause=1,pause=2,pause=5"])?;
    let pauses = rows(&run, "pauses")?;
    assert_eq!(pauses.len(), 4, "{run:#}");
    for pause in pauses {
        let moved = pause["from"] != pause["to"];
        if moved {
            ensure!(number(pause, "gap_ms")? > 0.0 && pause["proof"] == "expired", "{pause:#}");
        }
        if number(pause, "leases")? >= 2.0 {
            ensure!(moved && pause["killed"] == true, "{pause:#}");
        }
    }
    Ok(())
}

/// Where the runtime of the owner does nothing any more, its keeper is a thread of its own, and its dead-man the
/// kernel's.
#[test]
fn an_owner_whose_runtime_is_blocked_is_ended_by_its_dead_man() -> Result<()> {
    let run = play(&["--profile", SHORT, "--faults", "block"])?;
    let [takeover] = &rows(&run, "takeovers")?[..] else { bail!("{run:#}") };
    sound(takeover)?;
    ensure!(takeover["key"] == "block" && takeover["daemon_ended"] == true, "{takeover:#}");
    Ok(())
}

#[test]
fn an_owner_that_spins_on_all_cores_stops_in_time_when_it_is_cut_off() -> Result<()> {
    let run = play(&["--profile", SHORT, "--faults", "spin"])?;
    let [takeover] = &rows(&run, "takeovers")?[..] else { bail!("{run:#}") };
    ensure!(takeover["key"] == "spin", "{takeover:#}");
    sound(takeover)
}

#[test]
fn killing_the_owner_the_leader_or_both_moves_the_work_at_most_once_and_with_a_proof() -> Result<()> {
    let run = play(&["--profile", SHORT, "--faults", "crash,leader,both"])?;
    let [crash, both] = &rows(&run, "takeovers")?[..] else { bail!("{run:#}") };
    [crash, both].into_iter().try_for_each(sound)?;
    let [leader] = &rows(&run, "kept")?[..] else { bail!("{run:#}") };
    ensure!(leader["owner"] != leader["fenced"] && leader["proof"] != "", "{leader:#}");
    Ok(())
}
