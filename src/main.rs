//! The one binary. It only picks the role; what a role does is in `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    azblob_csi::cli::main()
}
