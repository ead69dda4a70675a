//! Makes clients of `proto/quorate/v1`, in Rust alone.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=../../proto");
    let files = protox::compile(["quorate/v1/cluster.proto", "quorate/v1/store.proto"], ["../../proto"])?;
    tonic_prost_build::configure().build_server(false).build_transport(false).compile_fds(files)?;
    Ok(())
}
