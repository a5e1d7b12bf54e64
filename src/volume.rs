//! Volumes of this node.
pub mod bind;
pub mod mountinfo;
pub mod options;
