//! Three operating-system processes over gRPC, killed with SIGKILL: the demo as a stranger runs it.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

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

/// Everybody who descends from `root` and is not dead, oldest first.
fn descendants(root: u32) -> Result<Vec<u32>> {
    let mut parents = vec![];
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some(rest) = stat.rfind(')').map(|at| &stat[at + 1..]) else { continue };
        let mut fields = rest.split_ascii_whitespace();
        let (state, parent) = (fields.next(), fields.next().and_then(|parent| parent.parse::<u32>().ok()));
        if let (Some(state), Some(parent)) = (state, parent)
            && !matches!(state, "Z" | "X")
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
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rfind(')').is_some_and(|at| !matches!(stat[at + 1..].trim_start().chars().next(), Some('Z' | 'X') | None))
}

fn start(arguments: &[&str]) -> Result<Child> {
    let demo = Command::new(demo()?).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    Ok(demo)
}

fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("a process")?;
    kill_process(pid, signal).context("sending a signal")
}

/// Waits until at least `count` processes descend from the demo.
fn wait_for_descendants(demo: &Child, count: usize) -> Result<Vec<u32>> {
    let begun = Instant::now();
    loop {
        let found = descendants(demo.id())?;
        if found.len() >= count {
            return Ok(found);
        }
        ensure!(begun.elapsed() < Duration::from_secs(60), "only {} processes were started", found.len());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The demo must have told the truth, and have left nobody behind.
fn judge(output: &Output, family: &[u32]) -> Result<ExitStatus> {
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.contains("0 overlaps, 0 tokens went backwards"), "{said}");
    ensure!(!said.contains("two owners"), "{said}");
    let begun = Instant::now();
    while let Some(left) = family.iter().find(|pid| alive(**pid)) {
        ensure!(begun.elapsed() < Duration::from_secs(20), "process {left} was left behind\n{said}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(output.status)
}

#[test]
fn the_demo_plays_to_its_table_and_every_takeover_has_a_proof() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("out.json");
    let output = start(&["--json", file.to_str().context("a path")?])?.wait_with_output()?;
    let status = judge(&output, &[])?;
    assert_eq!(status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let run: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let takeovers = run["takeovers"].as_array().context("takeovers")?;
    assert_eq!(takeovers.len(), 3, "{run:#}");
    for takeover in takeovers {
        let number = |key: &str| takeover[key].as_f64().with_context(|| format!("{key} in {takeover}"));
        assert!(number("gap_ms")? > 0.0 && number("running_ms")? >= number("proved_ms")?, "{takeover:#}");
        assert!(number("proved_ms")? >= number("detected_ms")?, "{takeover:#}");
        assert!(["device", "clean leave"].contains(&takeover["proof"].as_str().unwrap_or("none")), "{takeover:#}");
        assert_ne!(takeover["from"], takeover["to"]);
    }
    assert_eq!((run["overlaps"].as_u64(), run["tokens_backwards"].as_u64()), (Some(0), Some(0)));
    Ok(())
}

/// Not knowing is allowed, with a clear message; lying is not.
#[test]
fn killing_any_process_at_any_moment_from_outside_does_not_make_it_lie() -> Result<()> {
    for (victim, after) in [(0, 100), (1, 400), (2, 1200), (3, 250), (0, 2600)] {
        let demo = start(&[])?;
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

#[test]
fn an_interrupt_leaves_no_process_behind() -> Result<()> {
    for how in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mut demo = start(&[])?;
        let family = wait_for_descendants(&demo, 4)?;
        signal(demo.id(), how)?;
        let status = demo.wait()?;
        assert!(!status.success(), "{status}");
        let begun = Instant::now();
        while family.iter().any(|pid| alive(*pid)) {
            ensure!(begun.elapsed() < Duration::from_secs(30), "{how:?} left a process behind");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}
