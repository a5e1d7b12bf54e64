//! Service SAS of a container, signed as Azure's documentation has it ("Create a service SAS", version 2020-12-06).

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

const VERSION: &str = "2020-12-06";

/// A SAS for the container until `expiry` (as in `2040-01-01T00:00:00Z`).
pub fn container(account: &str, key: &str, container: &str, permissions: &str, expiry: &str) -> String {
    let resource = format!("/blob/{account}/{container}");
    let lines = [permissions, "", expiry, &resource, "", "", "", VERSION, "c", "", "", "", "", "", "", ""].join("\n");
    let mut mac = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(key).unwrap()).unwrap();
    mac.update(lines.as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let signature: String = url::form_urlencoded::byte_serialize(signature.as_bytes()).collect();
    format!("sv={VERSION}&sr=c&sp={permissions}&se={expiry}&sig={signature}")
}
