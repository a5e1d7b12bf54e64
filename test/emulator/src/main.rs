//! The `blob-emulator` command: flags in, a running emulator out. Knows nothing of how it works.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use blob_emulator::{Emulator, FaultRule, IdentityDescription, IdentityServices, Settings, parse_rate};
use clap::Parser;

/// In-memory Azure Blob service for development, demonstrations and benchmarks.
///
/// The account is devstoreaccount1 with the key of all Blob emulators. Knobs can be turned while it runs, with
/// PUT /__emulator/settings.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:10000", value_name = "ADDR")]
    listen: SocketAddr,
    /// Time that every request waits, such as 10ms.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration, value_name = "TIME")]
    latency: Duration,
    /// Up to this much more, at random.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration, value_name = "TIME")]
    jitter: Duration,
    /// Bandwidth of each connection and direction, such as 60MiB/s.
    #[arg(long, value_parser = parse_rate, value_name = "RATE")]
    per_connection: Option<u64>,
    /// Bandwidth of all connections together, in each direction.
    #[arg(long, value_parser = parse_rate, value_name = "RATE")]
    total: Option<u64>,
    /// JSON list of fault rules, or @FILE with one.
    #[arg(long, value_name = "JSON")]
    faults: Option<String>,
    /// Where the dice of faults and jitter begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Further accounts, or another key for devstoreaccount1.
    #[arg(long = "account", value_name = "NAME:KEY")]
    accounts: Vec<String>,
    /// Containers to create at the start.
    #[arg(long = "container", value_name = "NAME")]
    containers: Vec<String>,
    /// Give the account a hierarchical namespace (Data Lake Storage Gen2); its Data Lake endpoint is at the same address.
    #[arg(long)]
    hns: bool,
    /// Accept every request without looking at its credential.
    #[arg(long)]
    no_auth: bool,
    /// Serve Entra ID, managed identities, Resource Manager and Key Vault as well: JSON of tenants, identities and vaults, or
    /// @FILE with it ("{}" for none). Prints where they are.
    #[arg(long, value_name = "JSON")]
    identity: Option<String>,
    /// How many requests /__emulator/requests remembers.
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    request_log: usize,
}

/// The text, or what is in the file that it names.
fn text_or_file(text: &str) -> anyhow::Result<String> {
    match text.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("cannot read {file}")),
        None => Ok(text.to_owned()),
    }
}

/// Starts the services and prints their addresses.
fn start_identity(emulator: &Emulator, text: &str) -> anyhow::Result<IdentityServices> {
    let description: IdentityDescription = serde_json::from_str(&text_or_file(text)?).context(
        "--identity is JSON such as {\"tenants\":[{\"id\":\"...\",\"system_assigned\":[\"blob_data_reader\"]}]}",
    )?;
    let identity = IdentityServices::start(emulator)?;
    identity.describe(&description)?;
    println!("https_proxy {}", identity.proxy_url());
    println!("ca_file {}", identity.ca_file().display());
    println!("https {}", identity.https_endpoint());
    println!("imds {}", identity.imds_url());
    Ok(identity)
}

fn read_faults(text: Option<&str>) -> anyhow::Result<Vec<FaultRule>> {
    let Some(text) = text else { return Ok(Vec::new()) };
    serde_json::from_str(&text_or_file(text)?)
        .context("--faults is a JSON list of rules such as [{\"kind\":\"reset_connection\"}]")
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let flags = Flags::parse();
    let settings = Settings {
        auth: !flags.no_auth,
        latency: flags.latency,
        jitter: flags.jitter,
        per_connection: flags.per_connection,
        total: flags.total,
        faults: read_faults(flags.faults.as_deref())?,
        seed: flags.seed,
        hierarchical: flags.hns,
        request_log: flags.request_log,
        ..Settings::default()
    };
    let emulator = Emulator::start_at(flags.listen, settings)?;
    for account in &flags.accounts {
        let Some((name, key)) = account.split_once(':') else {
            bail!("--account is NAME:KEY with the key in base64; \"{account}\" has no colon");
        };
        emulator.set_key(name, key)?;
    }
    for name in &flags.containers {
        emulator.create_container(name);
    }
    let _identity = flags.identity.as_deref().map(|text| start_identity(&emulator, text)).transpose()?;
    println!("ready {}", emulator.endpoint());
    emulator.wait();
    Ok(())
}
