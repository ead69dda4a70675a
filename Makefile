# `make verify` only reads, `make fix` writes. The other targets prove or measure something.

.PHONY: verify fix model sim worlds edges mutants bench demo line processes chaos field peers fuzz

verify:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --test chaos --test field --test processes --test owners -- -D warnings
	cargo clippy --lib -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	.ci/line
	cargo test
	cargo test --test processes --test owners

fix:
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	cargo fmt --all

# Every interleaving of larger worlds than `cargo test` walks, of the cluster and of leases; prints states and seconds.
model:
	QUORATE_MODEL=full QUORATE_MODEL_LONG=1 cargo test --release -p quorate-membership --test model --test lease_model --test store_model -- --nocapture

# Each seeded mistake, and the test that caught it. Fails if one was not caught.
mutants:
	.ci/mutants

bench:
	cargo bench

# Beside etcd: WHAT=speed (PASSES=5 SECS=5), failover (TRIALS=20), idle, writes, crowd (MEMBERS=1000). On a quiet machine.
peers:
	benches/peers/run $${WHAT:-speed}

demo:
	cargo run --release --example three_nodes

# The crates depend one way, so do the rooms in them, no files name each other in a circle, and files and functions keep
# their sizes.
line:
	.ci/line

# Simulated clusters, tier by tier: the leases in continuous time (hours, and times beside their bounds), whole clusters of
# the shipped code, the same over the real wire, and every way to cut links. SEEDS=n and FIRST=n choose the worlds.
sim: worlds edges
	env -u SEEDS -u FIRST QUORATE_SIM=full cargo test --release -p quorate-membership --test des -- --nocapture --test-threads=1

# Whole clusters only: in memory, and over the wire (a tenth as many).
worlds:
	QUORATE_SIM=full cargo test --release --test sim -- --nocapture --test-threads=1 --skip every_cut
	QUORATE_SIM=full SEEDS=$$(( ($${SEEDS:-1000} + 9) / 10 )) cargo test --release --test wire_sim -- --nocapture

edges:
	QUORATE_SIM=full cargo test --release --test sim -- --nocapture every_cut

# The demo's processes, killed and interrupted from outside at any moment; and two processes on one data folder.
processes:
	cargo test --test processes --test owners

# Real processes on hosts of their own: ways cut, kill -9, SIGSTOP, full disks. As root; MINUTES=n, SEED=n, HOSTS=3|5.
chaos:
	cargo test --release -p quorate --test chaos

# What broke on real networks, on three hosts: thin links, a slow joiner, a stuttering leader, a quick restart, a whole stop, a
# crowd of clients; two networks of which either is cut, or both, or loses large packets (rows 20 to 24). As root; ROWS="1 9",
# RATES="20mbit 5mbit", JOINER=3mbit, PROFILE=patient, CUT=5 (seconds), CUTS="1 2" (of row 20).
field:
	cargo test --release -p quorate --test field

# What arrives from outside, with libFuzzer from the committed corpus: SECS=600 for longer. Needs a C++ compiler.
fuzz:
	.ci/fuzz
