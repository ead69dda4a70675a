//! Scenarios as text: each file under `scripts/` is named after a situation, opens with the claim it makes, and holds the
//! answers that were recorded. `QUORATE_RECORD=1 cargo test -p quorate-membership --test scripts` records them again;
//! the diff is for people to judge.
//!
//! Beside the answers every step checks two things that hold everywhere: a rejection changed nothing (I16), and the
//! events alone rebuild the state (I17).

#![expect(clippy::panic, reason = "a helper of tests stops the test")]

#[path = "support/language.rs"]
mod language;

use std::fs;
use std::path::{Path, PathBuf};

use quorate_membership::{ClusterState, Progress, Revision, apply, codec, duties, evolve};

/// The folders, each with a test of its own below.
const FOLDERS: [&str; 11] =
    ["join", "fence", "lease", "return", "quorum", "role", "remove", "lock", "record", "queue", "session"];

/// Fewer scripts than this means that some were lost.
const FEWEST: usize = 70;

const FIVE: &str = "found 7
configure n1 n2 n3 n4 n5
join n1 voter disk=1/1 nonce=11
join n2 voter disk=2/1 nonce=21
join n3 voter disk=3/1 nonce=31
join n4 voter disk=4/1 nonce=41
join n5 voter disk=5/1 nonce=51
activate n1#1
activate n2#1
activate n3#1
activate n4#1
activate n5#1
lead n1 nonce=1001";

#[test]
fn what_a_join_does() {
    replay_folder("join");
}

#[test]
fn what_fencing_does() {
    replay_folder("fence");
}

#[test]
fn what_the_end_of_a_lease_does() {
    replay_folder("lease");
}

#[test]
fn what_a_return_does() {
    replay_folder("return");
}

#[test]
fn what_a_majority_allows() {
    replay_folder("quorum");
}

#[test]
fn what_a_change_of_role_does() {
    replay_folder("role");
}

#[test]
fn what_a_removal_does() {
    replay_folder("remove");
}

#[test]
fn what_a_lock_does() {
    replay_folder("lock");
}

#[test]
fn what_a_write_does() {
    replay_folder("record");
}

#[test]
fn what_a_queue_does() {
    replay_folder("queue");
}

#[test]
fn what_a_session_does() {
    replay_folder("session");
}

#[test]
fn no_script_was_lost_and_every_folder_is_replayed() {
    let root = root();
    let mut found: Vec<String> = entries(&root).iter().map(|path| name(path)).collect();
    found.sort();
    let mut known = FOLDERS.map(String::from);
    known.sort();
    assert_eq!(found, known, "a folder without a test, or a test without a folder");
    let scripts: usize = FOLDERS.iter().map(|folder| entries(&root.join(folder)).len()).sum();
    assert!(scripts >= FEWEST, "{scripts} scripts, fewer than {FEWEST}");
}

#[test]
fn a_script_that_is_wrong_is_noticed() {
    let good = "# claim\n\nfound 7\n> r1 founded 00000000000000000000000000000007\n";
    assert_eq!(check(good), Ok(()));
    for (bad, complaint) in [
        ("found 7\n> r1 founded 00000000000000000000000000000007\n", "no claim"),
        ("# claim\n\nfound 7\n", "no recorded answer to `found 7`"),
        ("# claim\n\nfound 8\n> r1 founded 00000000000000000000000000000007\n", "- > r1 founded"),
        ("# claim\n\nfoumd 7\n> nothing new\n", "`foumd` is no command"),
        ("# claim\n", "no commands"),
    ] {
        let found = check(bad).expect_err(bad);
        assert!(found.contains(complaint), "{bad}\ngave: {found}");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn replay_folder(folder: &str) {
    let scripts = entries(&root().join(folder));
    assert!(!scripts.is_empty(), "no scripts in {folder}");
    let mut wrong = String::new();
    for path in scripts {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if std::env::var_os("QUORATE_RECORD").is_some() {
            let told = replay(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            fs::write(&path, told).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        } else if let Err(difference) = check(&text) {
            wrong += &format!("\n{folder}/{}\n{difference}\n", name(&path));
        }
    }
    assert!(wrong.is_empty(), "{wrong}\nQUORATE_RECORD=1 records the answers anew; read the diff before you keep it");
}

/// Whether a script makes a claim, has an answer to every command, and every answer is the one recorded.
fn check(text: &str) -> Result<(), String> {
    if !text.starts_with("# ") {
        return Err("no claim: the first line is a `#` comment that says what is shown".into());
    }
    let told = replay(text)?;
    let lines: Vec<&str> = text.lines().collect();
    if !lines.iter().any(|line| is_command(line)) {
        return Err("no commands".into());
    }
    for (line, next) in lines.iter().zip(lines[1..].iter().chain([&""])) {
        if is_command(line) && !next.starts_with('>') {
            return Err(format!("no recorded answer to `{line}`"));
        }
    }
    if told == text { Ok(()) } else { Err(difference(text, &told)) }
}

fn is_command(line: &str) -> bool {
    !line.trim().is_empty() && !line.starts_with('#') && !line.starts_with('>')
}

/// Replays a script and tells it again with the answers of now.
fn replay(text: &str) -> Result<String, String> {
    let (mut replica, mut told) = (Replica::default(), String::new());
    for line in text.lines().filter(|line| !line.starts_with('>')) {
        told += &format!("{line}\n");
        if is_command(line) {
            for answer in replica.answer(line)? {
                told += format!("> {answer}").trim_end();
                told.push('\n');
            }
        }
    }
    Ok(told)
}

/// A replica, and a watcher of it that sees nothing but the events.
#[derive(Default)]
struct Replica {
    state: ClusterState,
    watcher: ClusterState,
    revision: Revision,
}

impl Replica {
    fn answer(&mut self, line: &str) -> Result<Vec<String>, String> {
        match line {
            "three" => self.set_up(language::THREE),
            "five" => self.set_up(FIVE),
            "leader" => {
                Ok(vec![self.state.leadership().map_or("none".into(), |l| format!("{} by {}", l.activation, l.leader))])
            }
            "duties" => Ok(or_none(duties(&self.state).iter().map(ToString::to_string).collect())),
            "quorum" => {
                Ok(self.state.configuration().describe(&self.state.standing()).lines().map(String::from).collect())
            }
            "state" => Ok(picture(&self.state)),
            "history" => Ok(or_none(
                self.state
                    .fences()
                    .history()
                    .map(|r| {
                        r.second
                            .iter()
                            .fold(format!("{} {} {}: {}", r.confirmed, r.id, r.target, r.proof), |line, s| {
                                format!("{line}; and {s}")
                            })
                    })
                    .collect(),
            )),
            command => self.carry_out(command),
        }
    }

    fn set_up(&mut self, commands: &str) -> Result<Vec<String>, String> {
        for command in commands.lines() {
            if self.carry_out(command)?.iter().any(|answer| answer.starts_with("rejected")) {
                return Err(format!("`{command}` is only for the beginning of a script"));
            }
        }
        let active: Vec<_> = self.state.active().map(|who| who.to_string()).collect();
        Ok(vec![format!("{} {} active {}", self.revision, self.state.epoch(), active.join(" "))])
    }

    fn carry_out(&mut self, line: &str) -> Result<Vec<String>, String> {
        let command = language::under_current(language::command(line)?, &self.state);
        self.revision = self.revision.next();
        let before = self.state.clone();
        let answer = match apply(&mut self.state, self.revision, &command) {
            Ok(events) => {
                events.iter().for_each(|event| evolve(&mut self.watcher, self.revision, event));
                let lines = events.iter().map(|event| format!("{} {event}", self.revision)).collect::<Vec<_>>();
                if lines.is_empty() { vec!["nothing new".into()] } else { lines }
            }
            Err(rejection) => {
                assert_eq!(self.state, before, "`{line}` was rejected and changed the state");
                vec![format!("rejected: {rejection}")]
            }
        };
        assert_eq!(self.watcher, self.state, "after `{line}` the events alone give another state");
        let bytes = codec::encode(&self.state).map_err(|error| error.to_string())?;
        assert_eq!(codec::decode(&bytes), Ok(self.state.clone()), "after `{line}` a snapshot gives another state");
        Ok(answer)
    }
}

fn or_none(lines: Vec<String>) -> Vec<String> {
    if lines.is_empty() { vec!["none".into()] } else { lines }
}

fn picture(state: &ClusterState) -> Vec<String> {
    let mut lines = vec![format!("{} {} {}", state.revision(), state.epoch(), state.configuration())];
    lines.extend(state.members().map(|(node, member)| {
        let lives: Vec<_> = member.lives.iter().map(|(i, life)| format!("{i} {}", life.phase)).collect();
        let at: Vec<_> = member.addresses.iter().map(|address| address.as_str()).collect();
        format!("  {node} {} at {}: {}", member.role, at.join(" "), lives.join(", "))
    }));
    lines.extend(state.fences().open().map(|order| {
        let progress = match &order.progress {
            Progress::Ordered => "ordered".into(),
            Progress::Executing { by } => format!("executing by {by}"),
            Progress::Failed { reason } => format!("failed: {reason}"),
        };
        format!("  {} against {}, attempt {}, {progress}", order.id, order.target, order.attempts)
    }));
    lines.extend(state.retired().iter().map(|node| format!("  {node} retired")));
    lines
}

/// The lines that differ, between what both begin and end with.
fn difference(recorded: &str, told: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (recorded.lines().collect(), told.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[same..], &new[same..]);
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let command = old[..same].iter().rev().find(|line| is_command(line)).unwrap_or(&"");
    let mut text = format!("  line {}, at or after `{command}`\n", same + 1);
    text.extend(old_rest[..old_rest.len() - tail].iter().map(|line| format!("  - {line}\n")));
    text.extend(new_rest[..new_rest.len() - tail].iter().map(|line| format!("  + {line}\n")));
    text
}
