//! Makes Rust of `proto/quorate/v1`, in Rust alone: no protoc is needed on any machine.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../proto");
    let files =
        ["quorate/v1/types.proto", "quorate/v1/raft.proto", "quorate/v1/cluster.proto", "quorate/v1/store.proto"];
    let files = protox::compile(files, ["../proto"])?;
    tonic_prost_build::configure().build_transport(false).bytes(".").compile_fds(files)?;
    Ok(())
}
