//! What is done to a world: each fault begins, lasts, and is taken back; which kinds there are in a run is drawn from its
//! seed (swarm testing: Groce et al. 2012), and a run that failed is tried again with fewer.

use std::time::Duration;

use quorate::testing::sim::{DeviceFaults, End, NetConditions, Pace, Rate, Rng, Running, World};
use quorate::{Key, NodeId, Role, records::Value};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Isolate,
    CutLink,
    OneWay,
    /// A firewall drops what comes in to one node, and lets its own calls and their answers pass.
    ClosedPort,
    /// A firewall closes the connections from one node, or from all, to another, and refuses new ones in its name.
    Rejects,
    Bridge,
    Flap,
    Storm,
    Kill,
    PowerCut,
    KillAtAStep,
    EndAll,
    Pause,
    Suspend,
    SlowDisk,
    HungDisk,
    FullDisk,
    BrokenSync,
    ClockRate,
    ClockSlew,
    HandOver,
    LeaveAndReturn,
    BadDevice,
    Remove,
    Add,
    ShutDown,
    /// Another role: a machine that is to give its vote back, or to lead no more, for maintenance.
    Role,
    /// Little passes out of one node, or of all, and somebody writes much.
    ThinWays,
    /// A process that stops and goes on, again and again.
    Stutter,
    /// All end at once, and the disks are slow while they start again.
    BootStorm,
}

impl Kind {
    pub(crate) const ALL: [Self; 30] = [
        Self::Isolate,
        Self::CutLink,
        Self::OneWay,
        Self::ClosedPort,
        Self::Rejects,
        Self::Bridge,
        Self::Flap,
        Self::Storm,
        Self::Kill,
        Self::PowerCut,
        Self::KillAtAStep,
        Self::EndAll,
        Self::Pause,
        Self::Suspend,
        Self::SlowDisk,
        Self::HungDisk,
        Self::FullDisk,
        Self::BrokenSync,
        Self::ClockRate,
        Self::ClockSlew,
        Self::HandOver,
        Self::LeaveAndReturn,
        Self::BadDevice,
        Self::Remove,
        Self::Add,
        Self::ShutDown,
        Self::Role,
        Self::ThinWays,
        Self::Stutter,
        Self::BootStorm,
    ];

    /// The kinds of one run: about half of them.
    pub(crate) fn draw(rng: &mut Rng) -> Vec<Self> {
        let share = rng.between(250, 800);
        Self::ALL.into_iter().filter(|_| rng.chance(share)).collect()
    }
}

/// What is to be done later, to take a fault back or to carry it on.
#[derive(Debug, Clone)]
pub(crate) enum Then {
    MendAll,
    Mend(NodeId, NodeId),
    OpenPort(NodeId),
    Flip {
        a: NodeId,
        b: NodeId,
        times: u64,
    },
    Calm,
    Resume(NodeId),
    Quicken(NodeId),
    SyncAgain(NodeId),
    GoodDevice,
    WidenAll,
    /// Stops or lets go on, and does the other one after a while, so many times.
    Stutter(NodeId, u64),
    QuickenAll,
}

/// Whatever the director itself has to do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deed {
    HandOver,
    Leave(NodeId),
    Remove(NodeId),
    Add,
    ShutDown(NodeId),
    SetRole(NodeId, Role),
}

/// What a fault leaves to be done.
pub(crate) enum FollowUp {
    Later(Duration, Then),
    Now(Deed),
    Nothing,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Begins a fault.
pub(crate) fn strike(world: &mut World, kind: Kind, mut rng: Rng) -> FollowUp {
    let nodes = world.nodes();
    let pick = |rng: &mut Rng| rng.pick(&nodes).copied().unwrap_or_default();
    let (a, mut b) = (pick(&mut rng), pick(&mut rng));
    if a == b {
        b = nodes.iter().copied().find(|node| *node != a).unwrap_or_default();
    }
    let lasts = match rng.chance(300) {
        true => rng.span(ms(3000), ms(12_000)),
        false => rng.span(ms(50), ms(3000)),
    };
    world.say(format!("fault {kind:?} {a} {b} for {lasts:?}"));
    match kind {
        Kind::Isolate => {
            nodes.iter().filter(|node| **node != a).for_each(|node| world.net.cut(a, *node));
            FollowUp::Later(lasts, Then::MendAll)
        }
        Kind::CutLink => {
            world.net.cut(a, b);
            FollowUp::Later(lasts, Then::Mend(a, b))
        }
        Kind::OneWay => {
            match rng.chance(500) {
                true => world.net.cut_one_way(a, b),
                false => nodes.iter().filter(|n| **n != a).for_each(|n| match rng.chance(500) {
                    true => world.net.cut_one_way(a, *n),
                    false => world.net.cut_one_way(*n, a),
                }),
            }
            FollowUp::Later(lasts, Then::MendAll)
        }
        Kind::ClosedPort => {
            world.net.close_port(a);
            FollowUp::Later(lasts, Then::OpenPort(a))
        }
        Kind::Rejects => {
            let all = rng.chance(500);
            let rejected = nodes.iter().filter(|node| **node != b && (all || **node == a));
            rejected.for_each(|node| world.net.reject(*node, b));
            FollowUp::Later(lasts, Then::MendAll)
        }
        Kind::Bridge => {
            for x in &nodes {
                for y in nodes.iter().filter(|y| *y > x) {
                    if *x != a && *y != a {
                        world.net.cut(*x, *y);
                    }
                }
            }
            FollowUp::Later(lasts, Then::MendAll)
        }
        Kind::Flap => FollowUp::Later(ms(0), Then::Flip { a, b, times: rng.between(4, 40) }),
        Kind::Storm => {
            world.net.set_conditions(NetConditions {
                low: ms(rng.below(20)),
                high: ms(20 + rng.below(150)),
                loss: rng.below(200),
                twice: rng.below(200),
                late: rng.below(100),
                late_by: ms(rng.below(8000)),
            });
            FollowUp::Later(lasts, Then::Calm)
        }
        Kind::Kill | Kind::PowerCut => {
            let how = if kind == Kind::Kill { End::Killed } else { End::PowerCut };
            world.end(a, how);
            FollowUp::Nothing
        }
        Kind::KillAtAStep => {
            let how = if rng.chance(500) { End::Killed } else { End::PowerCut };
            if let Some(running) = world.process(a) {
                running.host.end_after(rng.between(1, 400), how);
            }
            FollowUp::Nothing
        }
        Kind::EndAll => {
            let how = if rng.chance(500) { End::Killed } else { End::PowerCut };
            nodes.iter().for_each(|node| world.end(*node, how));
            FollowUp::Nothing
        }
        Kind::Pause | Kind::Suspend => {
            if let Some(running) = world.process(a) {
                running.host.pause(kind == Kind::Suspend);
            }
            FollowUp::Later(lasts, Then::Resume(a))
        }
        Kind::Stutter => FollowUp::Later(ms(0), Then::Stutter(a, 2 * rng.between(2, 12) - 1)),
        Kind::BootStorm => {
            let how = if rng.chance(500) { End::Killed } else { End::PowerCut };
            nodes.iter().for_each(|node| {
                world.end(*node, how);
                world.set_pace(*node, Pace::Slow);
            });
            FollowUp::Later(lasts.max(ms(3000)), Then::QuickenAll)
        }
        Kind::SlowDisk | Kind::HungDisk | Kind::FullDisk => {
            let pace = match kind {
                Kind::SlowDisk => Pace::Slow,
                Kind::HungDisk => Pace::Hung,
                _ => Pace::Full,
            };
            world.set_pace(a, pace);
            FollowUp::Later(lasts, Then::Quicken(a))
        }
        Kind::BrokenSync => {
            if let Some(disk) = world.disk(a) {
                disk.fail_sync(rng.between(1, 5));
            }
            FollowUp::Later(ms(10_000), Then::SyncAgain(a))
        }
        Kind::ClockRate | Kind::ClockSlew => {
            let asleep = world.process(a).is_some_and(|running| running.host.is_paused());
            if !asleep {
                let oscillator = rng.between(0, 20_000) as i64 - 10_000;
                let slew = if kind == Kind::ClockSlew { rng.between(0, 160_000) as i64 - 80_000 } else { 0 };
                world.set_rate(a, Rate { oscillator, slew });
            }
            FollowUp::Nothing
        }
        Kind::BadDevice => {
            let mut part = || rng.below(300);
            world.device.set_faults(DeviceFaults { fails: part(), lies_down: part(), hangs: part(), late: part() });
            let from = nodes.iter().copied().filter(|_| rng.chance(250)).collect::<Vec<_>>();
            world.device.cut_off(from);
            FollowUp::Later(lasts, Then::GoodDevice)
        }
        Kind::HandOver => FollowUp::Now(Deed::HandOver),
        Kind::LeaveAndReturn => FollowUp::Now(Deed::Leave(a)),
        Kind::Remove => FollowUp::Now(Deed::Remove(a)),
        Kind::Add => FollowUp::Now(Deed::Add),
        Kind::ShutDown => FollowUp::Now(Deed::ShutDown(a)),
        Kind::Role => {
            let role = *rng.pick(&[Role::Voter, Role::Witness, Role::Learner]).unwrap_or(&Role::Voter);
            FollowUp::Now(Deed::SetRole(a, role))
        }
        Kind::ThinWays => {
            // Between 2 and 20 Mbit/s. What is written is more than a thin way carries in an election timeout, and one at a time:
            // the ways are thin, not overloaded.
            let (rate, pieces, all) = (rng.between(250_000, 2_500_000), rng.between(3, 8) as usize, rng.chance(500));
            if !world.net.is_thin() {
                write_much(world, a, pieces);
            }
            nodes.iter().filter(|node| all || **node == b).for_each(|node| world.net.make_thin(*node, rate));
            FollowUp::Later(lasts.max(ms(3000)), Then::WidenAll)
        }
    }
}

/// Somebody on a node writes so many pieces of 64 KiB at once. Nobody reads them, and what becomes of it is not judged.
pub(crate) fn write_much(world: &World, by: NodeId, pieces: usize) {
    let Some(Running { host, node }) = world.process(by).cloned() else { return };
    drop(host.spawn(async move {
        let records = node.records();
        let keys = (0..pieces).filter_map(|piece| Key::new(format!("large/{piece}")).ok());
        let write = keys.fold(records.write(), |write, key| write.put(key, Value::new(vec![0; 64 << 10])));
        write.commit().await
    }));
}

/// From now on the device does what it is asked.
pub(crate) fn good_device(world: &World) {
    world.device.set_faults(DeviceFaults::default());
    world.device.cut_off([]);
}

/// Takes a fault back, or carries it on.
pub(crate) fn undo(world: &World, then: &Then) -> Option<(Duration, Then)> {
    match then {
        Then::MendAll => world.net.mend_all(),
        Then::Mend(a, b) => world.net.mend(*a, *b),
        Then::OpenPort(node) => world.net.open_port(*node),
        Then::Flip { a, b, times } => {
            match times % 2 {
                0 => world.net.cut(*a, *b),
                _ => world.net.mend(*a, *b),
            }
            return times.checked_sub(1).map(|times| (ms(100), Then::Flip { a: *a, b: *b, times }));
        }
        Then::Calm => world.net.set_conditions(NetConditions::default()),
        Then::Resume(node) => {
            if let Some(running) = world.process(*node) {
                running.host.resume();
            }
        }
        Then::Quicken(node) => world.set_pace(*node, Pace::Quick),
        Then::SyncAgain(node) => {
            if let Some(disk) = world.disk(*node) {
                disk.fail_sync(0);
            }
        }
        Then::GoodDevice => good_device(world),
        Then::WidenAll => world.net.widen_all(),
        Then::QuickenAll => world.nodes().into_iter().for_each(|node| world.set_pace(node, Pace::Quick)),
        Then::Stutter(node, times) => {
            let stops = times % 2 == 1;
            if let Some(running) = world.process(*node) {
                match stops {
                    true => running.host.pause(false),
                    false => running.host.resume(),
                }
            }
            let pause = if stops { ms(850) } else { ms(500) };
            return times.checked_sub(1).map(|times| (pause, Then::Stutter(*node, times)));
        }
    }
    None
}
