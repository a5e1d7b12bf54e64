//! The service is not reached: name, port, proxy, TLS, and what answers in its place.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
};

use azblob_csi::finding::Finding;
use blob_emulator::Leaf;
use tonic::Code;

use crate::clinic::{ACCOUNT, Case, Clinic};

/// A server that answers every request like a login page does.
fn login_page() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Ends with the process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                while stream.read(&mut request).is_ok_and(|read| read > 0) {
                    let answer =
                        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html></html>";
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    format!("http://{address}/{ACCOUNT}")
}

#[test]
fn each_way_not_to_reach_the_service_is_told_apart() {
    let clinic = Clinic::new();
    // Bound, then dropped: a port that refuses.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let case = |finding, says: &[&str]| clinic.with_key(Case::new(finding, says));
    let tls = |finding, says: &[&str]| clinic.over_tls(case(finding, says));
    let unavailable = Code::Unavailable;
    for case in [
        case(Finding::NameUnknown, &["nosuchaccount.blob.invalid", "private DNS zone"])
            .at("https://nosuchaccount.blob.invalid"),
        case(Finding::NobodyListens, &[&closed.to_string(), "azurite"])
            .at(format!("http://{closed}/{ACCOUNT}"))
            .stages(unavailable),
        case(Finding::Unreachable, &[&silent.local_addr().unwrap().to_string(), "firewall"])
            .at(format!("http://{}/{ACCOUNT}", silent.local_addr().unwrap()))
            .stages(unavailable),
        tls(Finding::ProxyUnreachable, &[&closed.to_string(), "no_proxy"])
            .with("https_proxy", format!("http://{closed}"))
            .only_doctor(),
        tls(Finding::TlsAuthority, &["--ca-file"])
            .with("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
            .stages(unavailable),
        case(Finding::TlsFailed, &["speaks https"])
            .at(clinic.http().replace("http://", "https://"))
            .stages(unavailable),
        case(Finding::CaFile, &["/no/such/bundle.pem"]).flag("--ca-file=/no/such/bundle.pem"),
    ] {
        clinic.assert_found(&case);
    }
    let page = login_page();
    let examined = clinic.examine(&[format!("{page}/data")], &[("AZURE_STORAGE_KEY", clinic.world.emulator().key())]);
    clinic.found(&Case::new(Finding::NotABlobService, &["x-ms-request-id", "login page"]), &examined);
}

#[test]
fn the_second_endpoint_of_a_hierarchical_account_is_asked_too() {
    let clinic = Clinic::new();
    clinic.world.emulator().settings(|settings| settings.hierarchical = true);
    clinic.services.certify("devstoreaccount1.dfs.core.windows.net", Leaf::UnknownAuthority);
    let case = clinic.over_tls(clinic.with_key(Case::new(Finding::TlsAuthority, &[".dfs.core.windows.net"])));
    let examined = clinic.examine(&[format!("{}/data", clinic.https())], case.environment());
    clinic.found(&case, &examined);
}

#[test]
fn a_certificate_says_what_is_wrong_with_it() {
    for (leaf, finding, words) in [
        (Leaf::WrongName, Finding::TlsName, "another name"),
        (Leaf::Expired, Finding::TlsTime, "clock"),
        (Leaf::NotYetValid, Finding::TlsTime, "clock"),
        (Leaf::UnknownAuthority, Finding::TlsAuthority, "authority"),
    ] {
        let clinic = Clinic::new();
        clinic.services.certify(clinic.https().trim_start_matches("https://"), leaf);
        let case = clinic.over_tls(clinic.with_key(Case::new(finding, &[words])));
        clinic.assert_found(&case.stages(Code::Unavailable));
    }
}
