//! The one binary. It only picks the role; what a role does is in `cli`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: azblob_csi::fuse::Allocator = azblob_csi::fuse::Allocator;

fn main() -> ExitCode {
    azblob_csi::cli::main()
}
