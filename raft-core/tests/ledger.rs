//! The ledger as a file: what comes back of it after a crash, on a full disk, and when it has gone round.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proptest::prelude::*;
use quorate_membership::lease::Reading;
use quorate_membership::{Activation, BootId, Drift, FenceId, Identity, Incarnation, NodeId, Nonce, Revision, Stop};
use quorate_raft_core::ledger::{Bounds, Entry, LastEnd, Ledger, LedgerContent, LineError, Loss, Note, read};

const TIMEOUT: Duration = Duration::from_secs(60);
const N3: NodeId = NodeId::new(3);

fn n3(incarnation: u64) -> Identity {
    Identity::new(N3, Incarnation::new(incarnation))
}

fn held(seq: u64) -> Note {
    Note::Held { who: n3(1), seq, from: Reading::steady(Duration::from_millis(seq)) }
}

fn started() -> Note {
    Note::Started { session: Nonce::new(1) }
}

fn protects(what: &str) -> Note {
    Note::Protects { who: n3(1), what: what.into(), token: Revision::new(7) }
}

fn named() -> Note {
    let (stop, lease) = (Stop::Own { bound: Duration::from_millis(100) }, Duration::from_secs(3));
    Note::Registered { who: n3(1), stop, lease, in_flight: Duration::ZERO, drift: Drift::default() }
}

/// The numbers of the grants that are on record, in the order of their lines.
fn seqs(kept: &LedgerContent) -> Vec<u64> {
    let seq = |note: &Note| match note {
        Note::Held { seq, .. } => Some(*seq),
        _ => None,
    };
    kept.lines.iter().filter_map(|line| seq(&line.entry.note)).collect()
}

async fn until(claim: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, waited).await.with_context(|| format!("not within {TIMEOUT:?}: {claim}"))
}

fn notes() -> impl Strategy<Value = Note> {
    let who = || (0..u64::MAX, 0..u64::MAX).prop_map(|(n, i)| Identity::new(NodeId::new(n), Incarnation::new(i)));
    let time = || (any::<u64>(), 0..1_000_000_000u32).prop_map(|(s, ns)| Duration::new(s, ns));
    let reading = || (time(), time()).prop_map(|(boottime, raw)| Reading::new(boottime, raw));
    let token = || any::<u64>().prop_map(Revision::new);
    let activation = || any::<u64>().prop_map(Activation::new);
    let list = || prop::collection::vec(any::<String>(), 0..4);
    let stop = prop_oneof![
        Just(Stop::Unbounded),
        Just(Stop::Tokens),
        (time(), time()).prop_map(|(timeout, reset)| Stop::Watchdog { timeout, reset }),
        time().prop_map(|lateness| Stop::Deadman { lateness }),
        time().prop_map(|bound| Stop::Own { bound }),
    ];
    let ended = (who(), token(), any::<Option<u64>>(), any::<String>(), prop::option::of((activation(), time())));
    prop_oneof![
        any::<u128>().prop_map(|bits| Note::Started { session: Nonce::new(bits) }),
        (who(), stop, time(), time(), any::<u32>()).prop_map(|(who, stop, lease, in_flight, ppm)| Note::Registered {
            who,
            stop,
            lease,
            in_flight,
            drift: Drift::ppm(ppm)
        }),
        (who(), any::<u64>(), reading()).prop_map(|(who, seq, from)| Note::Held { who, seq, from }),
        (who(), any::<String>(), token()).prop_map(|(who, what, token)| Note::Protects { who, what, token }),
        (who(), any::<String>(), token()).prop_map(|(who, what, token)| Note::Stopped { who, what, token }),
        (who(), time(), any::<bool>(), list()).prop_map(|(who, left, condemned, protecting)| Note::Notice {
            who,
            left,
            condemned,
            protecting
        }),
        (who(), list()).prop_map(|(who, protecting)| Note::Lapsed { who, protecting }),
        (activation(), reading()).prop_map(|(activation, since)| Note::Activated { activation, since }),
        (activation(), reading()).prop_map(|(activation, since)| Note::Receipts { activation, since }),
        (who(), any::<u64>(), activation(), reading()).prop_map(|(who, seq, activation, received)| Note::Granted {
            who,
            seq,
            activation,
            received
        }),
        (who(), activation(), time()).prop_map(|(who, under, waited)| Note::Expiring { who, under, waited }),
        ended.prop_map(|(who, token, order, proof, by_time)| {
            let (under, waited) = by_time.unzip();
            Note::Ended { who, token, order: order.map(FenceId::new), proof, under, waited }
        }),
        Just(Note::Closed),
        any::<u64>().prop_map(|notes| Note::Dropped { notes }),
        Just(Note::Rotated),
    ]
}

proptest! {
    #[test]
    fn every_line_is_read_as_it_was_written(note in notes(), boot: u128, s: u64, ns in 0..1_000_000_000u32, node: u64) {
        let entry = Entry { boot: BootId::new(boot), at: Duration::new(s, ns), node: NodeId::new(node), note };
        let line = entry.to_string();
        prop_assert!(!line.contains('\n'));
        prop_assert_eq!(line.parse::<Entry>(), Ok(entry));
    }

    /// A flipped bit or a missing end is never read as another line.
    #[test]
    fn a_line_that_was_changed_is_known(note in notes(), at: prop::sample::Index, bit in 0..8u32) {
        let line = Entry { boot: BootId::new(5), at: Duration::ZERO, node: N3, note }.to_string();
        let mut bytes = line.clone().into_bytes();
        let at = at.index(bytes.len());
        let torn = String::from_utf8_lossy(&bytes[..at]).parse::<Entry>();
        prop_assert!(torn.is_err(), "{torn:?}");
        bytes[at] ^= 1 << bit;
        // The case of a digit of the checksum is all that may change.
        if let Ok(text) = String::from_utf8(bytes) && !text.eq_ignore_ascii_case(&line) {
            prop_assert!(text.parse::<Entry>().is_err(), "{text}");
        }
    }
}

#[test]
fn a_line_of_another_version_is_not_taken_for_damage() {
    let body = "q2 00000000000000000000000000000005 1 n3 closed";
    let line = format!("{body} {:08x}", crc32c::crc32c(body.as_bytes()));
    assert_eq!(line.parse::<Entry>(), Err(LineError::Version("q2".into())));
    let body = body.replace("q2", "q1") + " why=tired";
    let line = format!("{body} {:08x}", crc32c::crc32c(body.as_bytes()));
    assert_eq!(line.parse::<Entry>(), Err(LineError::Unknown));
}

/// A torn last line is the end of a process and nothing more; a line that is damaged among others is missing.
#[tokio::test]
async fn torn_is_not_damaged() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for _ in 0..2 {
        let ledger = Ledger::open(folder.path(), N3)?;
        [started(), held(1), held(2)].into_iter().for_each(|note| ledger.note(note));
        ensure!(ledger.close(TIMEOUT).await);
        let file = folder.path().join("ledger");
        let half = std::fs::read(&file)?.len() - 30;
        OpenOptions::new().write(true).open(&file)?.set_len(half as u64)?;
    }
    let kept = read(folder.path())?;
    // Once at the end of the file, once before the line of the process that came after.
    assert_eq!((kept.torn, kept.damaged.len(), kept.dropped()), (2, 0, 0));
    assert_eq!(seqs(&kept), [1, 2, 1, 2]);

    let file = folder.path().join("ledger");
    let text = std::fs::read_to_string(&file)?.replacen("seq=1", "seq=9", 1);
    std::fs::write(&file, text)?;
    let kept = read(folder.path())?;
    assert_eq!((kept.torn, kept.damaged.len()), (2, 1));
    assert_eq!((kept.damaged[0].0.line, &kept.damaged[0].1), (2, &LineError::Damaged));
    Ok(())
}

/// Two files, bounded, however much is written; and what is in force is always on record.
#[tokio::test]
async fn a_ledger_goes_round_and_forgets_nothing_that_is_in_force() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let bounds = Bounds { file: 64 << 10, queue: 1 << 16 };
    let ledger = Ledger::open_bounded(folder.path(), N3, bounds)?;
    let stopped = Note::Stopped { who: n3(1), what: "web".into(), token: Revision::new(7) };
    let begin = [started(), named(), protects("the queue"), protects("web"), stopped];
    begin.into_iter().for_each(|note| ledger.note(note));
    (1..=5000).for_each(|seq| ledger.note(held(seq)));
    ensure!(ledger.close(TIMEOUT).await);
    let size = |name| std::fs::metadata(folder.path().join(name)).map(|found| found.len());
    ensure!(size("ledger")? <= 64 << 10 && size("ledger.1")? <= 64 << 10, "{:?}", (size("ledger"), size("ledger.1")));
    let kept = read(folder.path())?;
    assert_eq!((kept.torn, kept.damaged.len(), kept.dropped(), kept.begins_later), (0, 0, 0, true));
    let found = |note: &Note| kept.lines.iter().filter(|line| line.entry.note == *note).count();
    assert_eq!([started(), named(), protects("the queue"), protects("web")].map(|note| found(&note)), [1, 1, 1, 0]);
    let seqs = seqs(&kept);
    // The oldest is the copy of the last grant before the file that is gone ended.
    ensure!(seqs == (seqs[0]..=5000).collect::<Vec<_>>(), "out of order, or with holes, from {} on", seqs[0]);
    ensure!(seqs.len() > 500, "{} lines are left", seqs.len());
    Ok(())
}

/// Nobody waits for a ledger whose disk does not answer. What found no room is counted, and said by a line.
#[tokio::test]
async fn a_note_never_waits_and_what_is_dropped_is_said() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // A pipe that nobody reads takes 64 KiB, and then blocks whoever writes. Opened both ways, it is there from the start.
    let pipe = folder.path().join("ledger");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)?;
    let pipe = OpenOptions::new().read(true).write(true).open(pipe)?;
    let ledger = Ledger::open_bounded(folder.path(), N3, Bounds { queue: 100, ..Bounds::default() })?;
    const NOTES: u64 = 10_000;
    let (told, all) = std::sync::mpsc::channel();
    let notes = std::thread::spawn(move || {
        (1..=NOTES).for_each(|seq| ledger.note(held(seq)));
        let _gone = told.send(ledger);
    });
    let ledger = all.recv_timeout(TIMEOUT).context("a note waited for the disk")?;
    assert!(notes.join().is_ok());
    let copy = std::thread::spawn(move || {
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(pipe));
        let mut seen = LedgerContent::default();
        let file: std::sync::Arc<Path> = Path::new("pipe").into();
        loop {
            let entry: Entry = lines.next().context("the pipe was closed")??.parse()?;
            let last = entry.note == Note::Closed;
            let place = quorate_raft_core::ledger::Place { file: file.clone(), line: seen.lines.len() + 1 };
            seen.lines.push(quorate_raft_core::ledger::LedgerLine { place, entry });
            if last {
                return anyhow::Ok(seen);
            }
        }
    });
    // A pipe cannot be synced, so that the last batch counts as failed although it came through.
    ensure!(ledger.close(TIMEOUT).await);
    let kept =
        tokio::task::spawn_blocking(move || copy.join()).await?.map_err(|_| anyhow::anyhow!("it panicked"))??;
    let written = seqs(&kept).len() as u64;
    ensure!(kept.dropped() > 0 && written + kept.dropped() == NOTES, "{written} and {} dropped", kept.dropped());
    Ok(())
}

/// A disk that is full stops nobody; when there is room again the ledger goes on, and says how much is missing.
#[tokio::test]
async fn a_full_disk_is_said_and_survived() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("ledger");
    symlink("/dev/full", &file)?;
    let ledger = Ledger::open(folder.path(), N3)?;
    for seq in 1..=10 {
        ledger.note(held(seq));
    }
    let counted = || format!("{ledger:?}").contains("dropped: 10");
    until("all ten are counted as dropped", counted).await?;
    std::fs::remove_file(&file)?;
    ledger.note(held(11));
    ensure!(ledger.close(TIMEOUT).await);
    let kept = read(folder.path())?;
    assert_eq!((kept.dropped(), seqs(&kept), kept.damaged.len()), (10, vec![11], 0));
    Ok(())
}

const CHILD: &str = "QUORATE_TEST_LEDGER";

/// Only what the process had not yet written is lost when it is killed.
#[tokio::test]
async fn what_a_killed_process_had_written_is_there() -> Result<()> {
    if let Some(folder) = std::env::var_os(CHILD) {
        let ledger = Ledger::open(Path::new(&folder), N3)?;
        [started(), named(), protects("db")].into_iter().for_each(|note| ledger.note(note));
        for seq in 1.. {
            ledger.note(held(seq));
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    let folder = tempfile::tempdir()?;
    let name = "what_a_killed_process_had_written_is_there";
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["--exact", name]).env(CHILD, folder.path()).stdout(Stdio::null());
    let mut child = child.spawn()?;
    let file = folder.path().join("ledger");
    let size = || std::fs::metadata(&file).map_or(0, |found| found.len());
    let written = until("the child has written something", || size() > 100_000).await;
    child.kill()?;
    child.wait()?;
    written?;
    let kept = read(folder.path())?;
    assert_eq!((kept.damaged.len(), kept.dropped()), (0, 0));
    let seqs = seqs(&kept);
    ensure!(seqs.len() > 500 && seqs == (1..=seqs.len() as u64).collect::<Vec<_>>(), "{} lines", seqs.len());
    // The next process knows of it.
    let ledger = Ledger::open(folder.path(), N3)?;
    let until = Some(Duration::from_millis(*seqs.last().context("lines")?) + Duration::from_secs(3));
    match ledger.last_end() {
        LastEnd::Silent { who, protecting, until: told, .. } => {
            assert_eq!((*who, protecting.as_slice(), *told), (n3(1), ["db".to_string()].as_slice(), until));
        }
        other => panic!("{other}"),
    }
    Ok(())
}

/// Why was I reset: as the next process tells it.
#[tokio::test]
async fn the_next_process_says_how_the_last_one_ended() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let next = || anyhow::Ok(Ledger::open(folder.path(), N3)?.last_end().clone());
    assert_eq!(next()?, LastEnd::None);
    let protecting = vec!["db".to_string()];
    let notice = |condemned| Note::Notice { who: n3(1), left: TIMEOUT, condemned, protecting: protecting.clone() };
    let lapsed = Note::Lapsed { who: n3(1), protecting: protecting.clone() };
    let stopped = Note::Stopped { who: n3(1), what: "db".into(), token: Revision::new(7) };
    let held = || held(1);
    let armed = || vec![started(), named(), held(), protects("db")];
    let cases = [
        (vec![], "ended without a word while db was protected"),
        (vec![notice(false)], "lapsed with db protected, and its stop mechanism acted: its lease was not renewed"),
        (vec![notice(true), lapsed], "lapsed with db protected, and its stop mechanism acted: the cluster had ended"),
        (vec![notice(false), held()], "ended without a word while db was protected"),
        (vec![notice(false), stopped.clone()], "ended without a word, and nothing was protected"),
        (vec![stopped, Note::Closed], "it was shut down"),
    ];
    for (notes, said) in cases {
        std::fs::write(folder.path().join("ledger"), "")?;
        let lines = armed().into_iter().chain(notes.clone()).zip(1u64..);
        let mut file = OpenOptions::new().append(true).open(folder.path().join("ledger"))?;
        for (note, at) in lines {
            let entry = Entry { boot: BootId::new(5), at: Duration::from_millis(at), node: N3, note };
            writeln!(file, "{entry}")?;
        }
        let told = next()?;
        ensure!(told.to_string().contains(said), "after {notes:?}: {told}");
        if let LastEnd::SelfFenced { reason, .. } = told {
            assert_eq!(reason == Loss::Condemned, notes.contains(&notice(true)));
        }
    }
    Ok(())
}
