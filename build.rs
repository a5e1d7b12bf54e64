//! Compiles proto/ into Rust without `protoc`: protox parses, tonic-prost-build writes client and server code.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["csi.proto", "pluginregistration.proto"];
    for file in files {
        println!("cargo::rerun-if-changed=proto/{file}");
    }
    tonic_prost_build::configure()
        // Ordered maps: two equal requests encode to equal bytes, which is how a repeated call is recognised.
        .btree_map(".")
        .compile_fds(protox::compile(files, ["proto"])?)?;
    Ok(())
}
