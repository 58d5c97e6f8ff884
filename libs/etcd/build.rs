//! Generates the etcd v3 messages, clients and servers.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["etcd.proto", "lock.proto", "election.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").codec_path("crate::codec::Fitting").compile_fds(files)?;
    Ok(())
}
