//! Volumes of this node.
pub mod bind;
pub mod mountinfo;
