//! csi
pub mod proto;
