//! What broke on real networks, on three hosts of its own: thin links, a port closed one way, large writes over the
//! same keys, a slow joiner, a stuttering leader, a quick restart, a whole stop, and a crowd of clients. And two networks, of which
//! one is cut, and large packets that vanish. Prints numbers, and fails where a bound is missed by far.
//!
//! `make field` (as root), or `ROWS="1 9" TRIES=2 cargo test --release --test field`.
//!
//! ```text
//!   main.rs ──▶ rows.rs, two_networks.rs ──▶ site.rs ──spawns──▶ node.rs    one process in each network namespace
//! ```

#[path = "../../examples/three_nodes/keys.rs"]
mod keys;
#[cfg(target_os = "linux")]
#[path = "../chaos/net.rs"]
#[expect(dead_code, reason = "the chaos runs use all of it")]
mod net;
mod node;
mod port;
mod rows;
mod site;
mod thin;
mod two_networks;

const ROWS: &str = "1 2 3 4 8 9 13 15 16 20 21 22 23 24";

fn main() -> std::process::ExitCode {
    match play() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn play() -> anyhow::Result<()> {
    if let Some(part) = std::env::var_os("QUORATE_FIELD_NODE") {
        return node::run(&part.to_string_lossy());
    }
    let asked = std::env::var("ROWS").unwrap_or_else(|_| ROWS.into());
    // How often a row may fail: a machine that stood still for a second is not what it is about.
    let tries = std::env::var("TRIES").ok().map_or(Ok(1), |text| text.parse())?;
    let mut failed = vec![];
    for row in asked.split_whitespace() {
        println!("--- row {row}");
        let mut played = play_row(row);
        for left in (1..tries).rev() {
            let Err(error) = &played else { break };
            println!("FAILED, and is played again ({left} more): {error:#}");
            played = play_row(row);
        }
        if let Err(error) = played {
            println!("FAILED: {error:#}");
            failed.push(row);
        }
    }
    anyhow::ensure!(failed.is_empty(), "failed: rows {}", failed.join(", "));
    Ok(())
}

fn play_row(row: &str) -> anyhow::Result<()> {
    match row {
        "1" => rows::thin_links(),
        "2" => rows::closed_port(),
        "3" => rows::large_rewrites(),
        "4" => rows::stuttering_leader(),
        "8" => rows::crowd_of_clients(),
        "9" => rows::slow_joiner(),
        "13" => rows::pause(),
        "15" => rows::quick_restart(),
        "16" => rows::whole_stop(),
        "20" => two_networks::two_networks(),
        "21" => two_networks::lost_links_show(),
        "22" => two_networks::cut_under_a_snapshot(),
        "23" => two_networks::both_cut(),
        "24" => two_networks::large_packets_lost(),
        other => anyhow::bail!("there is no row {other}; rows are {ROWS}"),
    }
}
