//! Generates what only the store speaks: members among themselves, and watches whose events are encoded already.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut files = Vec::new();
    for entry in std::fs::read_dir("proto")? {
        let name = entry?.file_name();
        if name.to_string_lossy().ends_with(".proto") {
            files.push(name);
        }
    }
    files.sort();
    let set = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("::coracle_etcd::codec::Fitting")
        .extern_path(".etcdserverpb.ResponseHeader", "::coracle_etcd::proto::ResponseHeader")
        .extern_path(".etcdserverpb.WatchRequest", "::coracle_etcd::proto::WatchRequest")
        .compile_fds(set)?;
    Ok(())
}
