//! The identity services seen by a plain HTTP client: TLS and names, tokens and refusals, what the emulator makes of a token.

mod identity {
    mod storage;
    mod tls;
    mod tokens;
    pub mod world;
}
