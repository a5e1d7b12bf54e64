//! What a volume promises, through two doors: the core by its own calls (`core`), and the built binary on a real mount
//! under programs that know nothing of us (the others). One binary for all, since linking it is slow.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

#[path = "fs/allocate.rs"]
mod allocate;
#[path = "fs/append.rs"]
mod append;
#[path = "fs/append_blobs.rs"]
mod append_blobs;
#[path = "fs/attributes.rs"]
mod attributes;
#[path = "fs/behind.rs"]
mod behind;
#[path = "fs/behind_names.rs"]
mod behind_names;
#[path = "fs/copy_range.rs"]
mod copy_range;
#[path = "fs/core.rs"]
mod core;
#[path = "fs/deadlines.rs"]
mod deadlines;
#[path = "fs/deletes.rs"]
mod deletes;
#[path = "fs/growth.rs"]
mod growth;
#[path = "fs/hierarchy.rs"]
mod hierarchy;
#[path = "fs/layouts.rs"]
mod layouts;
#[path = "fs/locks.rs"]
mod locks;
#[path = "fs/many_names.rs"]
mod many_names;
#[path = "fs/model.rs"]
mod model;
#[path = "fs/no_space.rs"]
mod no_space;
#[path = "fs/opening.rs"]
mod opening;
#[path = "fs/reading.rs"]
mod reading;
#[path = "fs/refusals.rs"]
mod refusals;
#[path = "fs/renames.rs"]
mod renames;
#[path = "fs/requests.rs"]
mod requests;
#[path = "fs/siblings.rs"]
mod siblings;
#[path = "fs/subtrees.rs"]
mod subtrees;
#[path = "fs/tags.rs"]
mod tags;
#[path = "fs/takeover.rs"]
mod takeover;
#[path = "fs/unsaved.rs"]
mod unsaved;
#[path = "fs/usage.rs"]
mod usage;
#[path = "fs/xattrs.rs"]
mod xattrs;
