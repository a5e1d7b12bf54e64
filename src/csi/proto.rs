//! The generated messages, clients and servers of proto/. Nothing is written by hand here.

/// The Container Storage Interface, v1.12.
#[expect(missing_docs, clippy::allow_attributes, clippy::allow_attributes_without_reason, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("csi.v1");
}

/// Registration of a plugin with the kubelet.
#[expect(missing_docs, clippy::allow_attributes, clippy::allow_attributes_without_reason, reason = "generated code")]
pub mod registration {
    tonic::include_proto!("pluginregistration");
}
