//! What the tests of volumes share. A scenario is a few verbs: put a blob as another client, mount, work, unmount, look.
//!
//! | file | what it is for |
//! |---|---|
//! | `service` | a Blob service of one's own, and what another client does to its container |
//! | `volume` | the file system core without FUSE |
//! | `mount` | the real binary on a real mount; ends with the same invariants in every test |
//! | `program` | other programs, under a time limit |
//! | `tree` | what a directory tree holds, for comparing |
//! | `random` | repeatable randomness |

pub mod random;
pub mod service;
pub mod volume;
