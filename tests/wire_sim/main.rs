//! Whole clusters over the shipped gRPC, on simulated TCP: what only the wire does to them, and every promise judged all
//! the while.
//!
//! ```text
//!   turmoil ─┬─ host n1   runtime, clock, ports ── Server ── node ── GrpcTransport ─┐
//!            ├─ host n2   …                          ▲      disk, lease, locks      │
//!            └─ topology  latency, cuts, held packets└──── HTTP/2 on simulated TCP ─┘
//! ```
//!
//! ```text
//!   SEEDS=100 FIRST=1   which seeds      QUORATE_SIM=full   many      WORLD=17 [UPTO=9] [ALOUD=1]   one of them, here
//! ```
//!
//! Nodes, disks, stop mechanisms, workers and promises are those of `tests/sim`. The seed decides the faults; HTTP/2 reads
//! real clocks here and there, so that two runs of a seed are alike and need not be the same.

mod coverage;
mod faults;
#[path = "../sim/judge.rs"]
mod judge;
mod machine;
#[path = "../sim/oracle/mod.rs"]
mod oracle;
#[path = "../sim/plan.rs"]
mod plan;
mod story;
#[path = "../sim/sweep.rs"]
mod sweep;
mod wiretap;
#[path = "../sim/workers.rs"]
mod workers;

use crate::plan::Plan;

/// One world, chosen by the environment: what the sweep starts once for each seed.
#[test]
#[ignore = "started by the sweep, once for each seed"]
fn one_wire() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("WORLD").expect("WORLD names the seed");
    let mut plan = Plan::draw(seed);
    plan.upto = number("UPTO").unwrap_or(u64::MAX);
    let aloud = number("ALOUD").is_some();
    if aloud {
        println!("{plan:#?}");
    }
    let heard = wiretap::install(aloud);
    let mut told = story::play(plan, aloud);
    heard.count(&mut told.tally);
    sweep::report(seed, &told);
}

#[test]
fn every_promise_holds_over_every_wire() {
    let swept = sweep::run(sweep::seeds(3, 120), "one_wire");
    swept.print();
    swept.must_hold();
}
