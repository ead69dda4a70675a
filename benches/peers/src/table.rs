//! What is printed: medians over the passes, and ratios to the first system pair by pair.

use std::time::Duration;

use crate::Traced;
use crate::calls::Calls;
use crate::cluster::Usage;
use crate::load::{Kind, Measured};

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

pub fn speed(names: &[&str], rows: &[(Kind, usize)], found: &[Vec<Vec<Measured>>]) {
    print!("\n{:<16}{:>8}", "a second", "clients");
    names.iter().for_each(|name| print!("{name:>14}"));
    names.iter().skip(1).for_each(|name| print!("{:>18}", format!("{name} ratio")));
    println!();
    for (row, (kind, clients)) in rows.iter().enumerate() {
        print!("{:<16}{clients:>8}", kind.name());
        for system in found {
            print!("{:>14.0}", median(system[row].iter().map(|outcome| outcome.per_second).collect()));
        }
        for system in found.iter().skip(1) {
            let pairs = system[row].iter().zip(&found[0][row]);
            print!("{:>18.2}", median(pairs.map(|(ours, theirs)| ours.per_second / theirs.per_second).collect()));
        }
        println!();
    }
    println!("\n{:<16}{:>8}  of all nodes for one: processor time in us / switches, p50 / p99 in ms, failed", "", "");
    for (row, (kind, clients)) in rows.iter().enumerate() {
        print!("{:<16}{clients:>8}", kind.name());
        for (name, system) in names.iter().zip(found) {
            let of = |read: fn(&Measured) -> f64| median(system[row].iter().map(read).collect());
            let failed: usize = system[row].iter().map(|outcome| outcome.errors).sum();
            let [cpu, switches, p50, p99] = [of(|o| o.cpu), of(|o| o.switches), of(|o| o.p50), of(|o| o.p99)];
            print!("   {name}: {cpu:.0} / {switches:.1}, {p50:.2} / {p99:.1}, {failed}");
        }
        println!();
    }
}

pub fn times(name: &str, ascending: &[f64]) {
    let at = |part: f64| ascending.get((ascending.len() as f64 * part) as usize).copied().unwrap_or(0.0);
    let last = ascending.last().copied().unwrap_or(0.0);
    let (p0, p50, p90) = (at(0.0), at(0.5), at(0.9));
    println!(
        "{name:<14} {} trials: shortest {p0:.0} ms, p50 {p50:.0}, p90 {p90:.0}, longest {last:.0}",
        ascending.len()
    );
}

pub fn idle(
    name: &str,
    role: &str,
    (before, after): (&Usage, &Usage),
    time: Duration,
    calls: Option<&Calls>,
    traced: Duration,
) {
    let cpu = (after.cpu - before.cpu).as_secs_f64() / time.as_secs_f64() * 100.0;
    let switches = (after.switches - before.switches) as f64 / time.as_secs_f64();
    let megabytes = after.resident as f64 / 1024.0;
    print!(
        "{name:<14} {role:<9} {cpu:>5.2} % of a core, {switches:>5.0} switches a second, {megabytes:>4.0} MB resident"
    );
    match calls {
        Some(calls) => {
            let a_second = |count: u64| count as f64 / traced.as_secs_f64();
            println!(
                ", {:.0} writes to sockets and {:.0} system calls a second",
                a_second(calls.sends),
                a_second(calls.all)
            );
        }
        None => println!(" (no strace here: system calls were not counted)"),
    }
}

pub fn writes(name: &str, clients: usize, traced: &Traced, calls: Option<&Calls>) {
    let each = |count: u64| count as f64 / traced.puts.max(1.0);
    print!("{name:<14} {clients:>3} clients: {:>5.1} switches", each(traced.switches));
    match calls {
        Some(Calls { all, writes, bytes, syncs, sends }) => println!(
            ", {:>6.0} bytes in {:>5.2} writes, {:>5.2} syncs, {:>5.1} system calls, {:.1} of them writes to sockets",
            each(*bytes),
            each(*writes),
            each(*syncs),
            each(*all),
            each(*sends)
        ),
        None => println!(" (no strace here: system calls were not counted)"),
    }
}
