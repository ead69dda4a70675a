//! Bytes at rest: golden vectors of every variant in both directions, and what damaged or foreign bytes are answered.
//!
//! `golden/*.hex` are the bytes that disks in the field hold. `QUORATE_RECORD=1` writes them anew, which is right only
//! for a variant that was just appended: a diff in an existing file means that old disks can no longer be read.

#![expect(clippy::panic, reason = "a helper of tests stops the test")]

#[path = "support/language.rs"]
mod language;
#[path = "support/golden_variants.rs"]
mod variants;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use quorate_membership::codec::{self, CodecError, Enveloped, FEATURE_LEVEL, Kind, LIMIT};
use quorate_membership::*;

/// How many variants `Command` has. It is `#[non_exhaustive]`, so no match out here can be forced to name them all:
/// they are counted instead, and `no_variant_is_missing` fails when the number after the last one decodes.
const COMMANDS: u32 = 26;

const HEADER: usize = 16;

/// Every command, and every variant of what commands are made of.
const COMMAND_VECTORS: &[(&str, &str)] = &[
    ("command-found", "found 7"),
    ("command-join-voter", "join n3 voter disk=3/1 nonce=31 at=10.0.0.3:7400,db3.example:7400"),
    ("command-join-learner", "join n4 learner disk=4/2 nonce=42"),
    ("command-join-witness", "join n5 witness disk=5/3 nonce=53"),
    ("command-activate", "activate n3#1"),
    ("command-order-silent", "order n3#1 silent 1500"),
    ("command-order-returned", "order n3#1 returned n3#2"),
    ("command-order-requested", "order n3#1 requested \"maintenance of the rack\""),
    ("command-start", "start f9 by n1 attempt 2"),
    ("command-fail", "fail f9 attempt 2 \"timed out\""),
    ("command-confirm-device", "confirm f9 n3#1 device by n1 attempt 2 \"power status read back: off\""),
    ("command-confirm-operator", "confirm f9 n3#1 operator \"alice\" \"pulled the plug\""),
    ("command-vouch", "vouch n3#1 \"alice\" \"pulled the plug\""),
    ("command-leave", "leave n3#1"),
    ("command-role", "role n3 witness"),
    ("command-address", "address n3 10.0.0.3:7400"),
    ("command-remove", "remove n3"),
    ("command-remove-asked", "remove n3 by alice.operators"),
    ("command-configure", "configure n1 n2 n3"),
    ("command-configure-joint", "configure n1 n2 -> n1 n2 n3 learners n4"),
    ("command-join-tokens", "join n3 voter disk=3/1 nonce=31 lease=600 stop=tokens"),
    ("command-join-watchdog", "join n3 voter disk=3/1 nonce=31 stop=watchdog:1000,200"),
    ("command-join-deadman", "join n3 voter disk=3/1 nonce=31 lease=600 stop=deadman:50"),
    ("command-join-own", "join n3 voter disk=3/1 nonce=31 stop=own:100 drift=500"),
    ("command-order-lapsed", "order n3#1 lapsed under a9"),
    ("command-order-refused", "order n3#1 refused under a9"),
    ("command-lead", "lead n1 nonce=1001"),
    ("command-expire", "expire n3#1 under a9 after 3400"),
    ("command-process-bound", "process-bound n3#1"),
    ("command-inherit", "inherit n3#2 n3#1"),
    ("command-lock", "lock vm/100 n3#1 req=5 since=r8 wait"),
    ("command-lock-session", "lock vm/100 s77 req=5 try"),
    ("command-unlock", "unlock vm/100 n3#1 r9"),
    ("command-settle", "settle req=5 since=r8 vm/100"),
    (
        "command-write",
        "write req=6 since=r8 if version a none & version b r3 & value c \"x\" & holds vm r9 & over n1#1 & active n2#1 \
         do put a \"v\" & put b \"w\" with n3#1 & delete c & push vm \"go\" & ack vm q1 r9",
    ),
    ("command-take", "take vm r9 req=7"),
    ("command-open", "open req=8 ttl=5000 delay=1000 \"a backup tool\""),
    ("command-open-owned", "open req=8 ttl=5000 delay=1000 \"a backup tool\" backup.clients"),
    ("command-close", "close s77"),
    ("command-run-out", "run-out s77 under a9 after 6000"),
    ("command-lift", "lift vm/100 r9 under a9 after 6000"),
];

/// Snapshots: of nothing, of a small cluster, and of one in which every variant of the state occurs.
const CLUSTER_VECTORS: &[(&str, &str)] = &[
    ("cluster-new", ""),
    ("cluster-three", language::THREE),
    (
        "cluster-full",
        "found 340282366920938463
configure n1 n2 n3 n4 n5
join n1 voter disk=1/1 nonce=11
join n2 voter disk=2/1 nonce=21
join n3 voter disk=3/1 nonce=31
join n4 voter disk=4/1 nonce=41 at=10.0.0.4:7400,db4.example:7400
join n5 witness disk=5/1 nonce=51
join n6 learner disk=6/1 nonce=61
join n7 learner disk=7/1 nonce=71
join n8 learner disk=8/1 nonce=81
join n9 learner disk=9/1 nonce=91
join n10 learner disk=10/1 nonce=101
join n11 learner disk=11/1 nonce=111 stop=deadman:250
join n12 learner disk=12/1 nonce=121 lease=600 stop=tokens
remove n9
configure n1 n2 n3 n4 -> n1 n2 n3 n4 n5 learners n6 n7 n8 n10 n11 n12
activate n1#1
activate n2#1
activate n3#1
activate n4#1
activate n6#1
activate n7#1
activate n8#1
activate n10#1
activate n11#1
activate n12#1
lead n1 nonce=1001
expire n11#1 under a27 after 3400
order n12#1 silent 1500
start f2 by n1 attempt 1
expire n12#1 under a27 after 700
confirm f2 n12#1 device by n1 attempt 1 \"off\"
vouch n6#1 \"alice\" \"the rack burnt down\"
vouch n10#1 \"bob\" \"sold\"
order n7#1 silent 1500
leave n7#1
join n7 learner disk=7/2 nonce=72
leave n7#2
order n4#1 silent 1500
start f6 by n1 attempt 1
confirm f6 n4#1 device by n1 attempt 1 \"power status read back: off\"
join n4 voter disk=4/2 nonce=42
order n8#1 requested \"maintenance\"
start f7 by n1 attempt 1
fail f7 attempt 1 \"timed out\"
join n6 learner disk=6/2 nonce=62
activate n6#2
join n6 learner disk=6/3 nonce=63
order n6#2 returned n6#3
start f8 by n2 attempt 1
process-bound n2#1
process-bound n1#1
join n1 voter disk=1/2 nonce=12 boot=11
inherit n1#2 n1#1
open req=1 ttl=5000 delay=2000 \"tool\"
open req=2 ttl=5000 delay=2000 \"other\" other.clients
lock a n2#1 req=3 wait
lock a n3#1 req=4 wait
lock b s55 req=5 wait
lock c s56 req=6 wait
write req=7 do put k \"v\" & put l \"v\" with n2#1 & push a \"go\" & push a \"on\"
take a r57 req=8
settle req=9
run-out s56 under a27 after 6000
order n3#1 silent 9000",
    ),
];

#[test]
fn every_command_has_the_bytes_it_always_had() {
    for (name, line) in COMMAND_VECTORS {
        both_directions(name, &command(line));
    }
}

#[test]
fn every_snapshot_has_the_bytes_it_always_had() {
    for (name, script) in CLUSTER_VECTORS {
        both_directions(name, &cluster(script));
    }
}

#[test]
fn no_vector_is_left_over() {
    let known: BTreeSet<_> = COMMAND_VECTORS.iter().chain(CLUSTER_VECTORS).map(|(name, _)| golden(name)).collect();
    let found: BTreeSet<_> = fs::read_dir(golden("x").parent().unwrap()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(found, known);
}

#[test]
fn no_variant_is_missing() {
    let commands: Vec<_> = COMMAND_VECTORS.iter().map(|(_, line)| command(line)).collect();
    let numbers: BTreeSet<u32> = commands.iter().map(|c| variant(&codec::encode(c).unwrap())).collect();
    assert_eq!(numbers, (0..COMMANDS).collect(), "a golden vector for each variant of Command");
    // Were there one more variant, these zeros would be one of its values, or cut short inside it.
    let next = seal(Kind::Command as u16, FEATURE_LEVEL, &[&COMMANDS.to_le_bytes()[..], &[0; 256]].concat());
    let complaint = codec::decode::<Command>(&next).unwrap_err().to_string();
    assert!(complaint.contains("variant"), "a variant was appended to Command, add its vectors here: {complaint}");

    let of_commands: BTreeSet<_> = commands.iter().flat_map(variants::in_command).collect();
    let expected = [
        "voter",
        "learner",
        "witness",
        "silent",
        "returned",
        "requested",
        "by device",
        "by operator",
        "joint",
        "uniform",
        "lapsed",
        "refused",
        "unbounded",
        "tokens",
        "watchdog",
        "deadman",
        "own",
        "absent",
        "version",
        "value",
        "holds",
        "over",
        "is active",
        "put",
        "put bound",
        "delete",
        "push",
        "acknowledge",
        "held by a life",
        "held by a session",
    ];
    assert_eq!(of_commands, BTreeSet::from(expected));
    let of_state = variants::in_cluster(&cluster(CLUSTER_VECTORS[2].1));
    let expected = [
        ["voter", "learner", "witness", "joining", "active", "fencing", "fenced", "left", "ordered", "executing"],
        [
            "failed",
            "silent",
            "returned",
            "requested",
            "device",
            "clean leave",
            "operator",
            "joint",
            "retired",
            "founded",
        ],
        [
            "lapsed",
            "expired",
            "corroborated",
            "led",
            "unbounded",
            "tokens",
            "deadman",
            "succeeded",
            "process_bound",
            "delayed",
        ],
        ["waiter", "bound", "record", "taken", "waiting", "session", "held by a life", "held by a session", "", ""],
    ];
    assert_eq!(
        of_state,
        expected.into_iter().flatten().filter(|n| !n.is_empty()).collect(),
        "the full snapshot lacks a variant"
    );
}

#[test]
fn a_record_cut_short_is_refused_at_every_length() {
    every_record(|name, bytes| {
        for length in 0..bytes.len() {
            let error = refusal(name, &bytes[..length]);
            assert!(matches!(error, CodecError::Length { .. }), "{name} cut to {length}: {error}");
        }
    });
}

#[test]
fn every_flipped_bit_is_noticed() {
    every_record(|name, bytes| {
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            refusal(name, &bytes);
        }
    });
}

#[test]
fn each_way_to_be_wrong_has_its_own_answer() {
    let good = codec::encode(&command("leave n3#1")).unwrap();
    let payload = &good[HEADER..];
    let answer = |bytes: &[u8]| codec::decode::<Command>(bytes).unwrap_err();
    let kind = Kind::Command as u16;
    assert_eq!(codec::decode(&seal(kind, FEATURE_LEVEL, payload)), Ok(command("leave n3#1")), "the seal of this test");

    let behind = [&good[..], b"!"].concat();
    assert_eq!(answer(&behind), CodecError::Length { got: payload.len() + 1, want: payload.len() });
    assert_eq!(answer(&[b"QRT2", &good[4..]].concat()), CodecError::Magic);
    assert_eq!(answer(&[0; 64]), CodecError::Magic);
    let newer = seal(kind, FEATURE_LEVEL + 1, payload);
    assert_eq!(answer(&newer), CodecError::Newer { format: 1, level: FEATURE_LEVEL + 1 });
    assert_eq!(answer(&reseal(&good, 4, 2)), CodecError::Newer { format: 2, level: FEATURE_LEVEL });
    assert_eq!(answer(&seal(99, FEATURE_LEVEL, payload)), CodecError::UnknownKind(99));
    let other = codec::encode(&ClusterState::new()).unwrap();
    assert_eq!(answer(&other), CodecError::WrongKind { got: Kind::ClusterState, want: Kind::Command });
    assert!(matches!(answer(&reseal(&good, 12, 0)), CodecError::Checksum { .. }), "a checksum of its own is kept");
    assert!(matches!(answer(&seal(kind, FEATURE_LEVEL, b"")), CodecError::Payload(_)), "nothing inside");
    let inside = seal(kind, FEATURE_LEVEL, &[payload, b"!"].concat());
    assert!(matches!(answer(&inside), CodecError::Payload(_)), "trailing bytes inside a sound envelope");

    // Who only carries a record passes on what a newer build wrote, and nothing that is damaged.
    assert_eq!(codec::inspect(&newer), Ok(()));
    assert_eq!(codec::inspect(&seal(99, FEATURE_LEVEL, payload)), Ok(()));
    assert!(codec::inspect(&behind).is_err());
}

#[test]
fn a_large_announcement_is_refused() {
    let good = codec::encode(&command("address n3 host:1")).unwrap();
    assert!(matches!(codec::decode::<Command>(&good[..10]), Err(CodecError::Length { got: 10, .. })));
    for announced in [LIMIT + 1, u32::MAX as usize] {
        let mut bytes = good.clone();
        bytes[8..12].copy_from_slice(&u32::try_from(announced).unwrap().to_le_bytes());
        assert_eq!(codec::decode::<Command>(&bytes), Err(CodecError::TooLarge(announced)));
    }
    // `address n3` holds: variant u32, node u64, number of addresses u64, length of the first u64, its bytes.
    for at in [12, 20] {
        for announced in [2_u64, 1 << 20, LIMIT as u64 - 64, LIMIT as u64 + 1, u64::MAX / 2, u64::MAX] {
            let mut payload = good[HEADER..].to_vec();
            payload[at..at + 8].copy_from_slice(&announced.to_le_bytes());
            let answer = codec::decode::<Command>(&seal(Kind::Command as u16, FEATURE_LEVEL, &payload));
            assert!(matches!(answer, Err(CodecError::Payload(_))), "{announced} announced at {at}: {answer:?}");
        }
    }
}

fn command(line: &str) -> Command {
    language::command(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn cluster(script: &str) -> ClusterState {
    let mut state = ClusterState::new();
    for (line, revision) in script.lines().zip(1..) {
        let command = language::under_current(command(line), &state);
        let answer = apply(&mut state, Revision::new(revision), &command);
        assert!(answer.is_ok_and(|events| !events.is_empty()), "`{line}` has no effect");
    }
    state
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.hex"))
}

/// The committed bytes of `name`, 32 to a line.
fn committed(name: &str) -> Vec<u8> {
    let path = golden(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(&String::from_utf8_lossy(pair), 16);
    digits.chunks(2).map(byte).collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn both_directions<T: Enveloped + PartialEq + Debug>(name: &str, value: &T) {
    let bytes = codec::encode(value).unwrap_or_else(|error| panic!("{name}: {error}"));
    if std::env::var_os("QUORATE_RECORD").is_some() {
        let line = |row: &[u8]| row.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
        let hex: String = bytes.chunks(32).map(line).collect();
        fs::write(golden(name), hex).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let committed = committed(name);
    assert_eq!(bytes, committed, "{name} is written differently: disks in the field hold the committed bytes");
    assert_eq!(codec::decode(&committed).as_ref(), Ok(value), "{name} is read differently");
}

fn every_record(check: impl Fn(&str, &[u8])) {
    for (name, _) in COMMAND_VECTORS.iter().chain(CLUSTER_VECTORS) {
        check(name, &committed(name));
    }
}

/// The answer to bytes that must be refused, read as what they once were.
fn refusal(name: &str, bytes: &[u8]) -> CodecError {
    let answer = match name.starts_with("command") {
        true => codec::decode::<Command>(bytes).map(|value| format!("{value:?}")),
        false => codec::decode::<ClusterState>(bytes).map(|value| format!("{value:?}")),
    };
    answer.err().unwrap_or_else(|| panic!("{name}: damaged bytes were read"))
}

fn variant(record: &[u8]) -> u32 {
    let number = record[HEADER..].first_chunk().copied().unwrap_or_else(|| panic!("no variant in {record:?}"));
    u32::from_le_bytes(number)
}

/// A sound envelope around any payload.
fn seal(kind: u16, level: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    let header = [&b"QRT1\x01"[..], &[level], &kind.to_le_bytes(), &length].concat();
    let crc = crc32c::crc32c(&[&header[..], payload].concat()).to_le_bytes();
    [&header[..], &crc, payload].concat()
}

/// Changes one byte of a record; before the checksum field, the checksum is made to fit again.
fn reseal(record: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = record.to_vec();
    bytes[at] = byte;
    if at < 12 {
        let crc = crc32c::crc32c(&[&bytes[..12], &bytes[HEADER..]].concat());
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    }
    bytes
}
