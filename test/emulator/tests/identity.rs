//! The identity services seen by a plain HTTP client: TLS and names, tokens and refusals, managed identities, Resource
//! Manager and vaults, what the emulator makes of a token.

// Helpers of tests fail the test by panicking, like the tests themselves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod identity {
    mod command;
    mod delegation;
    mod managed;
    mod resources;
    mod storage;
    mod tls;
    mod tokens;
    pub mod world;
}
