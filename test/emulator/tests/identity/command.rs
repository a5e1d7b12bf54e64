//! The emulator's command with identity services.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use super::world::{CLIENT, TENANT};

/// The command, ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_command_serves_what_a_description_holds_and_says_where() {
    let description = format!(
        r#"{{"tenants":[{{"id":"{TENANT}","applications":[{{"client_id":"{CLIENT}","secrets":["s"],"roles":["blob_data_reader"]}}],
           "system_assigned":["blob_data_reader"]}}],"vaults":{{"safe":{{"key":"value"}}}},"token_life":"3s"}}"#
    );
    let command = Command::new(env!("CARGO_BIN_EXE_blob-emulator"))
        .args(["--listen", "127.0.0.1:0", "--container", "box", "--identity", &description])
        .stdout(Stdio::piped())
        .spawn();
    let mut running = Running(command.unwrap());
    let lines: Vec<String> =
        BufReader::new(running.0.stdout.take().unwrap()).lines().take(5).map(Result::unwrap).collect();
    let value = |name: &str| {
        let found = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {name} in {lines:?}")).to_owned()
    };
    assert!(value("ready").starts_with("http://127.0.0.1:"));
    assert!(value("https").starts_with("https://localhost:"));
    let authority = reqwest::Certificate::from_pem(&std::fs::read(value("ca_file")).unwrap()).unwrap();
    let proxy = reqwest::Proxy::https(value("https_proxy")).unwrap();
    let client = reqwest::Client::builder().proxy(proxy).tls_certs_only([authority]).build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (posted, local) = runtime.block_on(async {
        let form = format!(
            "grant_type=client_credentials&client_id={CLIENT}&client_secret=s&scope=https://storage.azure.com/.default"
        );
        let url = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token");
        let posted = client.post(url).body(form).send().await.unwrap().text().await.unwrap();
        let url = format!(
            "{}/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://storage.azure.com",
            value("imds")
        );
        let local = client.get(url).header("metadata", "true").send().await.unwrap().text().await.unwrap();
        (posted, local)
    });
    assert!(posted.contains("\"expires_in\":3,"), "{posted}");
    assert!(local.contains("\"expires_in\":\"3\""), "{local}");
}
