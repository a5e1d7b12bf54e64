//! Client assertions: is this signed statement a credential of that application? Federated tokens by issuer, audience and
//! subject; certificates by thumbprint and signature. Must not know HTTP.
//! Rules: pages "Microsoft identity platform application authentication certificate credentials" and "Workload identity federation".

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use time::OffsetDateTime;
use webpki::{
    EndEntityCert,
    aws_lc_rs::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256_LEGACY_KEY},
};

use crate::identity::{
    directory::{Application, Directory},
    refusal::Facts,
    token::Jwt,
};

/// Verifies an assertion, and writes what it says into the facts.
///
/// # Errors
/// The AADSTS code.
pub(crate) fn verify(
    directory: &Directory,
    application: &Application,
    assertion: &str,
    facts: &mut Facts,
) -> Result<(), u32> {
    let Some(assertion) = Jwt::parse(assertion) else {
        return Err(50_027);
    };
    facts.issuer = assertion.claim("iss").to_owned();
    facts.subject = assertion.claim("sub").to_owned();
    facts.audience = assertion.claim("aud").to_owned();
    (facts.begin, facts.end) = (assertion.time("nbf"), assertion.time("exp"));
    if assertion.claim("iss") == facts.client {
        by_certificate(application, &assertion, facts)
    } else {
        by_federation(directory, application, &assertion, facts)
    }
}

fn in_time(facts: &Facts) -> Result<(), u32> {
    let now = OffsetDateTime::now_utc();
    // Five minutes for clocks that differ, as the service allows at the beginning of a token.
    let begun = facts.begin.is_none_or(|begin| now >= begin - time::Duration::minutes(5));
    if begun && facts.end.is_some_and(|end| now < end) { Ok(()) } else { Err(700_024) }
}

fn by_federation(directory: &Directory, application: &Application, assertion: &Jwt, facts: &Facts) -> Result<(), u32> {
    let records = &application.federated;
    if records.is_empty() {
        return Err(70_025);
    }
    let of_issuer: Vec<_> = records.iter().filter(|record| record.issuer == facts.issuer).collect();
    let of_audience: Vec<_> = of_issuer.iter().filter(|record| record.audience == facts.audience).collect();
    if of_issuer.is_empty() {
        return Err(700_211);
    }
    if of_audience.is_empty() {
        return Err(700_212);
    }
    if !of_audience.iter().any(|record| record.subject == facts.subject) {
        let but_for_case = of_audience.iter().any(|record| record.subject.eq_ignore_ascii_case(&facts.subject));
        return Err(if but_for_case { 7_002_138 } else { 700_213 });
    }
    in_time(facts)?;
    if !directory.lock().clusters.contains(&facts.issuer) {
        return Err(50_166);
    }
    if directory.cluster_signed(assertion) { Ok(()) } else { Err(5_000_811) }
}

fn by_certificate(application: &Application, assertion: &Jwt, facts: &mut Facts) -> Result<(), u32> {
    let named = |name: &str| URL_SAFE_NO_PAD.decode(assertion.header[name].as_str()?.trim_end_matches('=')).ok();
    let (short, long) = (named("x5t"), named("x5t#S256"));
    facts.thumbprint = short.as_ref().or(long.as_ref()).map(|hash| hex(hash)).unwrap_or_default();
    let is_named = |certificate: &&Vec<u8>| {
        let sha1 = digest(&SHA1_FOR_LEGACY_USE_ONLY, certificate);
        let sha256 = digest(&SHA256, certificate);
        short.as_deref().is_none_or(|hash| hash == sha1.as_ref())
            && long.as_deref().is_none_or(|hash| hash == sha256.as_ref())
            && (short.is_some() || long.is_some())
    };
    let Some(certificate) = application.certificates.iter().find(is_named) else {
        facts.what = "The key was not found.".to_owned();
        return Err(700_027);
    };
    if !signed(certificate, assertion) {
        facts.what = "The key was found, but use of the key to verify the signature failed.".to_owned();
        return Err(700_027);
    }
    let ours = format!("https://{}/{}/", facts.authority, facts.tenant);
    let rest = facts.audience.strip_prefix(&ours);
    if !matches!(rest, Some("" | "v2.0" | "oauth2/token" | "oauth2/v2.0/token")) {
        return Err(700_023);
    }
    if facts.subject != facts.client {
        return Err(700_021);
    }
    in_time(facts)
}

fn signed(certificate: &[u8], assertion: &Jwt) -> bool {
    let algorithm: &dyn SignatureVerificationAlgorithm = match assertion.header["alg"].as_str() {
        Some("RS256") => RSA_PKCS1_2048_8192_SHA256,
        Some("PS256") => RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        _ => return false,
    };
    let certificate = CertificateDer::from(certificate);
    EndEntityCert::try_from(&certificate)
        .and_then(|key| key.verify_signature(algorithm, assertion.signed.as_bytes(), &assertion.signature))
        .is_ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
