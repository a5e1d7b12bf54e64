//! What must stand in no output.

/// Fails when `key`, or a signature made with any key, stands in `text`.
#[track_caller]
pub fn assert_no_secret(text: &str, key: &str) {
    assert!(!text.contains(key), "the account key stands in: {text}");
    // Signatures of requests and SAS alike.
    for mark in ["sig=", "SharedKey "] {
        for found in text.split(mark).skip(1) {
            let value: String = found.chars().take_while(|c| !c.is_whitespace()).collect();
            let hidden = value.is_empty()
                || value.starts_with(['"', '*', '<', ',', ')', '(', '&', '.'])
                || value.starts_with("REDACTED");
            let prose = mark == "SharedKey " && !value.contains(':');
            assert!(hidden || prose, "a signature stands in the output behind {mark}: {value}");
        }
    }
}
