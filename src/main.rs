//! The one binary. It only picks the role; what a role does is in `cli`.

fn main() {}
